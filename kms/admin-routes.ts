import { consoleRoute } from './admin-console.js'
import { sealRoute, statusRoute, unlockRoute } from './admin-control.js'
import { backupRoute, shareRoute } from './admin-custody.js'
import {
  dependentsRoute,
  keysRoute,
  keyStateRoute,
  rewrapProgressRoute,
  rewrapRoute,
  rotateRoute,
} from './admin-keys.js'
import { metricsRoute } from './admin-metrics.js'
import { approvedRoute, reloadPolicyRoute } from './admin-policy.js'
import type { AdminRoute } from './admin-route.js'

/** All that operators can ask of a running KMS: the server, its description and its fuzzer follow this table. */
export const ADMIN_ROUTES: readonly AdminRoute[] = [
  statusRoute,
  unlockRoute,
  sealRoute,
  approvedRoute,
  reloadPolicyRoute,
  keysRoute,
  rotateRoute,
  keyStateRoute,
  dependentsRoute,
  rewrapRoute,
  rewrapProgressRoute,
  consoleRoute,
  shareRoute,
  backupRoute,
  metricsRoute,
]
