import { defineEnclave, ecall } from 'keyrise/enclave'
import * as v from 'valibot'

export default defineEnclave({
  name: 'credit',
  svn: 1,
  ecalls: {
    keep: ecall({ input: v.string(), output: v.number() }, ({ flow }, note) =>
      flow.checkpoint({ 'final-result/note': new TextEncoder().encode(note) }),
    ),
    recall: ecall({ input: v.undefined(), output: v.nullable(v.string()) }, async ({ flow }) => {
      const note = await flow.read('final-result/note')
      return note === undefined ? null : new TextDecoder().decode(note)
    }),
  },
})
