/* eslint @typescript-eslint/no-unsafe-call: off, @typescript-eslint/no-unsafe-return: off -- what does not compile has no type */
import * as v from 'valibot'
import { defineEnclave, ecall, ocall } from '../../enclave/index.js'
import type { EcallsOf, OcallsOf, SwitchlessOf } from '../../protocol/contract.js'

/** Compiled, never run: streams, limits, switchless calls and options, as an author and a host may write them. */

/** Text on the host's side, its length in the enclave. */
const Length = v.pipe(
  v.string(),
  v.transform((text) => text.length),
)
const Row = v.object({ row: v.number() })
const rows = ocall({ input: v.string(), yields: Length, limits: { perSecondMax: 10, deadlineMs: 1000 } })
const tell = ocall({ input: v.string(), output: v.boolean() })

export const streaming = defineEnclave({
  name: 'streaming',
  svn: 1,
  ocalls: { rows, tell },
  ecalls: {
    // The host streams items in, and gets one reply.
    sum: ecall({ input: v.string(), output: v.number(), receives: Length }, async ({ items, signal }) => {
      let sum = 0
      for await (const length of items) sum += length
      signal.throwIfAborted()
      // @ts-expect-error: an item is a number
      for await (const item of items) item.trim()
      return sum
    }),
    // One argument, and a stream of answers.
    count: ecall({ input: v.number(), yields: Row }, async function* ({ flow, items }, to) {
      // @ts-expect-error: nothing is streamed in
      await items.next()
      for (let row = 0; row < to; row++) yield { row: row + (await Promise.resolve(flow.epoch)) }
    }),
    // Both, and an OCALL that yields.
    merge: ecall(
      { input: v.undefined(), receives: Row, yields: Length, ocalls: { rows } },
      async function* ({ items, ocalls }) {
        for await (const { row } of items) yield String(row)
        for await (const length of ocalls.rows('all')) yield 'x'.repeat(length)
        // @ts-expect-error: a stream, not a promise
        await ocalls.rows('all').then()
      },
    ),
    list: ecall({ input: v.number(), yields: v.number() }, (_, to) => Array.from({ length: to }, (__, n) => n)),
    add: ecall(
      { input: v.object({ a: v.number(), b: v.number() }), output: v.number(), switchless: true },
      (_, { a, b }) => a + b,
    ),
    limited: ecall(
      { input: v.optional(v.string()), output: v.string(), limits: { inputSizeBytesMax: 100, inFlightMax: 1 } },
      (_, text) => text ?? '',
    ),
    // @ts-expect-error: a switchless handler answers at once
    late: ecall({ input: v.number(), output: v.number(), switchless: true }, async (_, a) => Promise.resolve(a)),
    // @ts-expect-error: a switchless ECALL has no streams
    sluice: ecall({ input: v.number(), yields: v.number(), switchless: true }, () => [1]),
    // @ts-expect-error: nor OCALLs
    asking: ecall({ input: v.number(), output: v.number(), switchless: true, ocalls: { tell } }, (_, a) => a),
    // @ts-expect-error: one or the other
    both: ecall({ input: v.number(), output: v.number(), yields: v.number() }, () => 1),
    // @ts-expect-error: it has neither
    neither: ecall({ input: v.number() }, () => 1),
    // @ts-expect-error: the items are numbers
    texts: ecall({ input: v.number(), yields: v.number() }, () => ['1']),
    // @ts-expect-error: no such limit
    unknown: ecall({ input: v.number(), output: v.number(), limits: { perSecondMax: 1 } }, (_, a) => a),
  },
})

declare const stubs: EcallsOf<typeof streaming>
declare const switchless: SwitchlessOf<typeof streaming>
declare const signal: AbortSignal

export const accepted = async (): Promise<unknown[]> => {
  const sum: number = await stubs.sum('x', { items: ['a', 'b'], signal, deadlineMs: 10 })
  const taken: unknown[] = []
  for await (const { row } of stubs.count(3)) taken.push(row.toFixed())
  for await (const length of stubs.merge(undefined, { items: [{ row: 1 }] })) taken.push(length.toFixed())
  const added: number = switchless.add({ a: 1, b: 2 })
  return [
    sum,
    taken,
    added,
    await stubs.add({ a: 1, b: 2 }, { idempotencyKey: 'one', signal, deadlineMs: 5 }),
    await stubs.limited(),
    await stubs.limited('x', { signal }),
  ]
}

export const refused = async (): Promise<unknown[]> => {
  // @ts-expect-error: items have to come from somewhere
  await stubs.sum('x')
  // @ts-expect-error: the items are text
  await stubs.sum('x', { items: [1] })
  // @ts-expect-error: what is streamed cannot be recorded
  await stubs.sum('x', { items: ['a'], idempotencyKey: 'one' })
  // @ts-expect-error: nor what streams out
  stubs.count(1, { idempotencyKey: 'one' })
  // @ts-expect-error: nothing is streamed into it
  await stubs.limited('x', { items: [1] })
  // @ts-expect-error: a stream is no promise
  const rest: PromiseLike<unknown> = stubs.count(1)
  // @ts-expect-error: it is not declared switchless
  switchless.limited('x')
  // @ts-expect-error: a deadline is a number
  await stubs.limited('x', { deadlineMs: '1' })
  return [rest]
}

export const host: OcallsOf<typeof streaming> = {
  rows: async function* (question, context) {
    if (!context.signal.aborted) yield await Promise.resolve(question)
  },
  tell: (line) => line === '',
}
export const arrays: OcallsOf<typeof streaming> = { rows: (question) => [question], tell: () => Promise.resolve(true) }
// @ts-expect-error: it yields text, which the enclave parses
export const parsed: OcallsOf<typeof streaming> = { rows: () => [1], tell: () => true }
// @ts-expect-error: it yields, it does not answer
export const answered: OcallsOf<typeof streaming> = { rows: () => Promise.resolve('x'), tell: () => true }
