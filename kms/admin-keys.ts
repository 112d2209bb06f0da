import { ROOT_SUITES } from '../protocol/statements.js'
import { makeRootSecrets } from '../protocol/crypto/root-private.js'
import { adminRoute } from './admin-route.js'
import { objectOf } from './admin-schema.js'
import { parseKeyId, withNext } from './root-keys.js'

export const rotateRoute = adminRoute({
  method: 'POST',
  path: '/v1/keys/rotate',
  summary: 'Makes the next version of a root key, or the first of one; enclaves seal to it from their next session on.',
  request: objectOf({
    key: { type: 'string', maxLength: 32 },
    suite: { type: 'string', maxLength: 32, enum: [...ROOT_SUITES] },
  }),
  reply: objectOf({ key: { type: 'string', maxLength: 64 } }),
  run: async (control, { key: claimed, suite }) => {
    const id = parseKeyId(claimed)
    return control.change(async (kms, passphrase) => {
      const secrets = await makeRootSecrets(suite, control.options.random)
      const keys = await kms.changeKeys(passphrase, (known) => withNext(known, id, secrets))
      return { key: keys[0]?.key ?? '' }
    })
  },
})
