import { readFileSync } from 'node:fs'
import { Validator } from '@seriousme/openapi-schema-validator'
import test from 'ava'
import { ADMIN_ROUTES } from '../../kms/admin-routes.js'
import { openApiDocument } from '../../kms/openapi.js'
import { OPENAPI_DOCUMENT, renderOpenApi } from './openapi-document.js'

test('docs/openapi.json describes both surfaces as they are, and is valid OpenAPI 3.1', async (t) => {
  const written = readFileSync(OPENAPI_DOCUMENT, 'utf8')
  t.is(written, await renderOpenApi(), 'run `npm run docs:openapi`')
  const validator = new Validator()
  const { valid, errors } = await validator.validate(JSON.parse(written) as Record<string, unknown>)
  t.true(valid, JSON.stringify(errors))
  t.is(validator.version, '3.1')
  const { paths } = openApiDocument() as { paths: Record<string, Record<string, unknown>> }
  for (const { path, method } of ADMIN_ROUTES) t.truthy(paths[path]?.[method.toLowerCase()], path)
  for (const path of ['/v1/exchange', '/v1/identity', '/healthz', '/readyz', '/openapi.json'])
    t.truthy(paths[path], path)
})
