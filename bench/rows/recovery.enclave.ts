import * as v from 'valibot'
import { defineEnclave, ecall } from '../../enclave/index.js'

/** What P8 kills: a flow with as many secrets as it is told to have. */
export default defineEnclave({
  name: 'bench-recovery',
  svn: 1,
  ecalls: {
    fill: ecall(
      { input: v.object({ count: v.number(), sizeBytes: v.number() }), output: v.number() },
      ({ flow }, { count, sizeBytes }) => {
        const names = Array.from({ length: count }, (_, index) => `password/${String(index)}` as const)
        return flow.checkpoint(
          Object.fromEntries(names.map((name, index) => [name, new Uint8Array(sizeBytes).fill(index & 0xff)])),
        )
      },
    ),
    read: ecall(
      { input: v.number(), output: v.instance(Uint8Array) },
      async ({ flow }, index) => (await flow.read(`password/${String(index)}`)) ?? new Uint8Array(0),
    ),
  },
})
