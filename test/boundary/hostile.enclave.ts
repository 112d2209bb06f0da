import { createHash } from 'node:crypto'
import * as v from 'valibot'
import { defineEnclave, ecall, ocall } from '../../enclave/index.js'
import { inspectValue } from './inspect-value.js'

const nothing = v.optional(v.undefined())
const consult = ocall({ input: v.string(), output: v.any() })

/** What no hostile message may change. */
const state = { total: 0, log: ['begun'] }

const inspect = (value: unknown): string => inspectValue(value) ?? 'plain'

const PROTOTYPES = [Object, Array, Function, String, Number, Promise, Map, Uint8Array, ArrayBuffer, Error]

/** The state of the module and of the intrinsics. */
const digest = (): string => {
  const shapes = PROTOTYPES.map(({ name, prototype }) => [name, Reflect.ownKeys(prototype as object).map(String)])
  return createHash('sha256')
    .update(JSON.stringify([state, shapes, Object.keys(globalThis)]))
    .digest('hex')
}

/** What hostile messages are sent to. */
export default defineEnclave({
  name: 'hostile',
  svn: 1,
  ocalls: { consult },
  ecalls: {
    add: ecall({ input: v.object({ a: v.number(), b: v.number() }), output: v.number() }, (_, { a, b }) => a + b),
    /** Anything: says whether it is a plain value. */
    take: ecall({ input: v.any(), output: v.string() }, (_, input: unknown) => inspect(input)),
    /** Asks the host, and says whether the answer is a plain value. */
    ask: ecall({ input: v.string(), output: v.string(), ocalls: { consult } }, async ({ ocalls }, question) =>
      inspect(await ocalls.consult(question)),
    ),
    /** Changes the state: no hostile message is a right call of it. */
    spend: ecall({ input: v.object({ amount: v.number() }), output: v.number() }, (_, { amount }) => {
      state.log.push(String(amount))
      return (state.total += amount)
    }),
    digest: ecall({ input: nothing, output: v.string() }, digest),
    memory: ecall({ input: nothing, output: v.number() }, () => {
      const { heapUsed, arrayBuffers } = process.memoryUsage()
      return heapUsed + arrayBuffers
    }),
  },
})
