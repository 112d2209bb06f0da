import { defineEnclave, ecall } from 'keyrise/enclave'
import * as v from 'valibot'

export default defineEnclave({
  name: 'ciphertexts',
  svn: 1,
  ecalls: {
    keep: ecall(
      { input: v.object({ round: v.number(), ciphertext: v.instance(Uint8Array) }), output: v.number() },
      ({ flow }, { round, ciphertext }) =>
        flow.checkpoint({ [`intermediate-result/round-${round}`]: { to: 'kms' as const, bytes: ciphertext } }),
    ),
    readAll: ecall({ input: v.undefined(), output: v.array(v.string()) }, async ({ flow }) => {
      const names = flow.list().map(({ name }) => name)
      const found: string[] = []
      for await (const item of flow.readBulk(names))
        found.push(`${item.name}: ${'error' in item ? item.error.code : `${item.bytes.length} bytes`}`)
      return found
    }),
  },
})
