import { ROOT_SUITES } from '../protocol/statements.js'
import { adminRoute } from './admin-route.js'
import { objectOf } from './admin-schema.js'
import { withNextKey } from './change-keys.js'

export const rotateRoute = adminRoute({
  method: 'POST',
  path: '/v1/keys/rotate',
  summary: 'Makes the next version of a root key, or the first of one; enclaves seal to it from their next session on.',
  request: objectOf({
    key: { type: 'string', maxLength: 32 },
    suite: { type: 'string', maxLength: 32, enum: [...ROOT_SUITES] },
  }),
  reply: objectOf({ key: { type: 'string', maxLength: 64 } }),
  run: (control, { key: id, suite }) =>
    control.change(async (kms, passphrase) => {
      const keys = await withNextKey({ id, suite }, control.options.random, (change) =>
        kms.changeKeys(passphrase, change),
      )
      return { key: keys[0]?.key ?? '' }
    }),
})
