import * as v from 'valibot'
import { defineEnclave, ecall, ocall } from '../../enclave/index.js'

const pause = ocall({ input: v.undefined(), output: v.undefined() })

/** What the host's tests launch, kill and launch again. */
export default defineEnclave({
  name: 'notebook',
  svn: 1,
  ecalls: {
    write: ecall(
      { input: v.object({ page: v.string(), bytes: v.instance(Uint8Array) }), output: v.number() },
      ({ flow }, { page, bytes }) => flow.checkpoint({ [`final-result/${page}`]: bytes }),
    ),
    read: ecall(
      { input: v.string(), output: v.nullable(v.instance(Uint8Array)) },
      async ({ flow }, page) => (await flow.read(`final-result/${page}`)) ?? null,
    ),
    sign: ecall({ input: v.instance(Uint8Array), output: v.instance(Uint8Array) }, ({ flow }, message) =>
      flow.sign(message),
    ),
    hang: ecall({ input: v.undefined(), output: v.undefined(), ocalls: { pause } }, ({ ocalls }) =>
      ocalls.pause(undefined),
    ),
  },
  ocalls: { pause },
})
