import * as v from 'valibot'
import { defineEnclave, ecall } from '../../enclave/index.js'

const ENTRIES = ['password/a', 'intermediate-result/b', 'session/c'] as const

/** Three entries of three kinds, one of them sealed straight to the KMS, written in one checkpoint: all say the same round. */
export default defineEnclave({
  name: 'book',
  svn: 1,
  ecalls: {
    write: ecall(
      { input: v.object({ round: v.number(), sizeBytes: v.number() }), output: v.number() },
      ({ flow }, { round, sizeBytes }) => {
        const bytes = new Uint8Array(new ArrayBuffer(8 + sizeBytes))
        new DataView(bytes.buffer).setFloat64(0, round)
        return flow.checkpoint({
          'password/a': bytes.subarray(0, 8),
          'intermediate-result/b': bytes,
          'session/c': { to: 'kms', bytes: bytes.subarray(0, 8) },
        })
      },
    ),
    read: ecall({ input: v.undefined(), output: v.array(v.number()) }, async ({ flow }) => {
      const rounds: number[] = []
      for (const name of ENTRIES) {
        const bytes = await flow.read(name)
        rounds.push(bytes === undefined ? 0 : new DataView(bytes.buffer, bytes.byteOffset).getFloat64(0))
      }
      return rounds
    }),
    sign: ecall({ input: v.undefined(), output: v.instance(Uint8Array) }, ({ flow }) =>
      flow.sign(new TextEncoder().encode('the same for ever')),
    ),
  },
})
