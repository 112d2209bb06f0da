import { defineEnclave, ecall, refuse } from 'keyrise/enclave'
import * as v from 'valibot'

/** What runs inside. Its default export declares every call that can come in; nothing else can. */
export default defineEnclave({
  name: 'counter',
  svn: 1,
  ecalls: {
    add: ecall({ input: v.pipe(v.number(), v.integer()), output: v.number() }, async ({ flow }, by) => {
      if (by < 0) refuse('negative')
      const stored = await flow.read('intermediate-result/count')
      const count = by + (stored === undefined ? 0 : Number(new TextDecoder().decode(stored)))
      // Durable, sealed and known to be the newest when this resolves: only then is the answer given.
      await flow.checkpoint({ 'intermediate-result/count': new TextEncoder().encode(String(count)) })
      return count
    }),
  },
  refusals: { negative: 'this counter only counts upwards' },
})
