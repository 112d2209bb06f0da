import { toHex } from '../protocol/bytes.js'
import { adminRoute } from './admin-route.js'
import { SUBMITTED } from './admin-custody.js'
import { hexOf, objectOf } from './admin-schema.js'
import type { KmsControl } from './control.js'

const STATUS = objectOf({
  state: { type: 'string', maxLength: 16, enum: ['sealed', 'unlocked'] },
  sinceMs: {
    type: 'integer',
    minimum: 0,
    maximum: Number.MAX_SAFE_INTEGER,
    description: 'when it came into this state, in milliseconds since 1970',
  },
  identity: hexOf(32),
  submitted: SUBMITTED,
  keys: {
    type: 'array',
    maxItems: 1024,
    items: objectOf({
      key: { type: 'string', maxLength: 128 },
      suite: { type: 'string', maxLength: 32 },
      state: { type: 'string', maxLength: 16, enum: ['enabled', 'decrypt-only', 'disabled'] },
      recipient: { type: 'string', maxLength: 4096 },
    }),
  },
})

const statusOf = (control: KmsControl) => {
  const { sinceMs, identity, ...rest } = control.status()
  return Promise.resolve({ ...rest, sinceMs: Math.max(0, Math.trunc(sinceMs)), identity: toHex(identity) })
}

export const statusRoute = adminRoute({
  method: 'GET',
  path: '/v1/status',
  summary: 'Whether the KMS is sealed, and who it is.',
  request: 'none',
  reply: STATUS,
  run: statusOf,
})

export const unlockRoute = adminRoute({
  method: 'POST',
  path: '/v1/unlock',
  summary: 'Opens the keyring with its passphrase, which is the body as it is.',
  request: 'secret',
  reply: STATUS,
  requestSizeBytesMax: 1024,
  run: async (control, passphrase) => {
    await control.unlock(passphrase.clone())
    return statusOf(control)
  },
})

export const sealRoute = adminRoute({
  method: 'POST',
  path: '/v1/seal',
  summary: 'Answers what is under way, then forgets every key.',
  request: 'none',
  reply: STATUS,
  run: async (control) => {
    await control.seal()
    return statusOf(control)
  },
})
