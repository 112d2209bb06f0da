import { adminRoute } from './admin-route.js'

export const metricsRoute = adminRoute({
  method: 'GET',
  path: '/metrics',
  summary: 'What the KMS counts and measures, for Prometheus.',
  request: 'none',
  reply: 'text',
  run: (control) => control.options.metrics.text(),
})
