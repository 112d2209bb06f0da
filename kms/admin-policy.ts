import { toHex } from '../protocol/bytes.js'
import { adminRoute } from './admin-route.js'
import { hexOf, objectOf } from './admin-schema.js'
import { parseApproved } from './request-file.js'

export const approvedRoute = adminRoute({
  method: 'POST',
  path: '/v1/approved',
  summary: 'Hands in what approvers signed: a migration grant, a release, or a change of the policy.',
  request: objectOf({
    request: { type: 'string', maxLength: 60 * 1024, description: 'the request with its approvals' },
  }),
  reply: objectOf({ approvers: { type: 'array', maxItems: 64, items: { type: 'string', maxLength: 64 } } }),
  run: async (control, { request }) => ({ approvers: [...(await control.openKms.approve(parseApproved(request)))] }),
})

export const reloadPolicyRoute = adminRoute({
  method: 'POST',
  path: '/v1/policy/reload',
  summary: 'Puts in force the policy that its file has now, where the one before lets it.',
  request: 'none',
  reply: objectOf({ policy: hexOf(32) }),
  run: async (control) => ({ policy: toHex(await control.reloadPolicy()) }),
})
