import { randomFillSync } from 'node:crypto'
import * as v from 'valibot'
import { defineEnclave, ecall } from '../../enclave/index.js'

const TOTAL = 'intermediate-result/total'

/** An enclave with a state that survives: what attacks on the KMS's side of the boundary are tried on. */
export default defineEnclave({
  name: 'vault',
  svn: 1,
  ecalls: {
    /** One random answer for each round, recorded before it is given. */
    answer: ecall({ input: v.string(), output: v.instance(Uint8Array<ArrayBuffer>) }, async ({ flow }, round) => {
      const name = `final-result/${round}` as const
      const given = await flow.read(name)
      if (given !== undefined) return given
      const answer = randomFillSync(new Uint8Array(new ArrayBuffer(32)))
      await flow.checkpoint({ [name]: answer })
      return answer
    }),
    /** Counts its calls, and keeps the count. */
    count: ecall({ input: v.optional(v.undefined()), output: v.number() }, async ({ flow }) => {
      const [total = 0] = (await flow.read(TOTAL)) ?? []
      await flow.checkpoint({ [TOTAL]: Uint8Array.of(total + 1) })
      return total + 1
    }),
    publish: ecall({ input: v.instance(Uint8Array<ArrayBuffer>), output: v.boolean() }, async ({ flow }, key) => {
      await flow.publish({ key })
      return true
    }),
    /** The key that a peer published. */
    peerKey: ecall(
      { input: v.string(), output: v.nullable(v.instance(Uint8Array<ArrayBuffer>)) },
      async ({ flow }, peer) => {
        const member = (await flow.roster()).find((one) => one.flow === peer)
        return member?.published['key'] === undefined ? null : Uint8Array.from(member.published['key'])
      },
    ),
  },
})
