/* eslint @typescript-eslint/no-unsafe-call: off, @typescript-eslint/no-unsafe-return: off -- what does not compile has no type */
import * as v from 'valibot'
import { defineEnclave, ecall, ocall } from '../../enclave/index.js'
import type { EcallsOf, OcallsOf } from '../../protocol/contract.js'
import type { Image } from '../../platform/image.js'

/** Compiled, never run: what the compiler must accept and refuse, from an author's declaration to the host's stubs. */

const ask = ocall({
  input: v.object({ question: v.string() }),
  output: v.pipe(
    v.string(),
    v.transform((text) => text.length),
  ),
})

export const party = defineEnclave({
  name: 'party',
  svn: 1,
  ocalls: { ask },
  ecalls: {
    train: ecall(
      {
        input: v.object({ round: v.number(), model: v.instance(Uint8Array) }),
        output: v.object({ loss: v.number() }),
        ocalls: { ask },
      },
      async ({ flow, ocalls }, { round }) => {
        const epoch: number = await flow.checkpoint({ 'intermediate-result/x': new Uint8Array(1) })
        const answer: number = await ocalls.ask({ question: 'why' })
        // @ts-expect-error: the question is text
        await ocalls.ask({ question: 1 })
        // @ts-expect-error: not declared by this ECALL
        await ocalls.tell({})
        // @ts-expect-error: no such kind of secret
        await flow.checkpoint({ 'other-kind/x': new Uint8Array(1) })
        return { loss: epoch + round + answer }
      },
    ),
    ping: ecall({ input: v.optional(v.number(), 1), output: v.string() }, (_, count) => 'x'.repeat(count)),
    // @ts-expect-error: the handler returns what the output schema does not take
    wrong: ecall({ input: v.string(), output: v.number() }, (_, text) => text),
    // @ts-expect-error: an ECALL that does not declare an OCALL has none
    quiet: ecall({ input: v.string(), output: v.number() }, ({ ocalls }) => ocalls.ask({ question: '' })),
  },
})

declare const stubs: EcallsOf<typeof party>
declare const image: Image<typeof party>

export const accepted = async (): Promise<{ loss: number; text: string }> => {
  const { loss } = await stubs.train({ round: 1, model: new Uint8Array(1) })
  return { loss, text: await stubs.ping(undefined) }
}

export const refused = async (): Promise<unknown[]> => {
  // @ts-expect-error: a round is a number
  await stubs.train({ round: '1', model: new Uint8Array(1) })
  // @ts-expect-error: the model is missing
  await stubs.train({ round: 1 })
  // @ts-expect-error: not declared
  await stubs.export()
  // @ts-expect-error: the reply is text
  const wrong: number = await stubs.ping(1)
  // @ts-expect-error: another enclave's image
  const other: Image<{ readonly ecalls: { readonly other: (typeof party)['ecalls']['ping'] } }> = image
  return [wrong, other]
}

export const host: OcallsOf<typeof party> = { ask: ({ question }) => question.toUpperCase() }
// @ts-expect-error: the answer is text, which the enclave parses
export const parsed: OcallsOf<typeof party> = { ask: ({ question }) => question.length }
// @ts-expect-error: an OCALL that the enclave declares is missing
export const incomplete: OcallsOf<typeof party> = {}
