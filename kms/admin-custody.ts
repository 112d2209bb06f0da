import { CUSTODIAN_COUNT_MAX } from '../protocol/limits.js'
import { copyBytes } from '../protocol/bytes.js'
import { adminRoute } from './admin-route.js'
import { hexOf, objectOf } from './admin-schema.js'

const COUNT = { type: 'integer', minimum: 0, maximum: CUSTODIAN_COUNT_MAX } as const
export const SUBMITTED = {
  type: 'array',
  maxItems: CUSTODIAN_COUNT_MAX,
  items: COUNT,
  description: 'whose shares are there',
} as const

export const shareRoute = adminRoute({
  method: 'POST',
  path: '/v1/unlock/share',
  summary: 'Takes a custodian’s share, which is the body as it is; the last one that is needed opens the keyring.',
  request: 'secret',
  reply: objectOf({
    state: { type: 'string', maxLength: 16, enum: ['sealed', 'unlocked'] },
    submitted: SUBMITTED,
    threshold: COUNT,
    count: COUNT,
  }),
  requestSizeBytesMax: 1024,
  run: async (control, share) => {
    const { submitted, threshold, count } = await share.expose((bytes) => control.submitShare(bytes))
    return { state: control.status().state, submitted, threshold, count }
  },
})

export const backupRoute = adminRoute({
  method: 'POST',
  path: '/v1/backups',
  summary: 'Leaves the receipt of a backup, before its file is written.',
  request: objectOf({ digest: { ...hexOf(32), description: 'SHA-256 of the file' } }),
  reply: objectOf({}),
  run: async (control, { digest }) => {
    await control.openKms.receipts.record('backup', { digest: copyBytes(Buffer.from(digest, 'hex')) })
    return {}
  },
})
