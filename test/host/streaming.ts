import * as v from 'valibot'
import { defineEnclave, ecall, ocall, refuse } from '../../enclave/index.js'
import { launchInThread } from './in-thread.js'

const nothing = v.optional(v.undefined())
const rows = ocall({ input: v.number(), yields: v.number(), limits: { deadlineMs: 1000, outputSizeBytesMax: 8 } })

/** An enclave that streams in every way, in this thread; `seen` tells what its handlers did. */
export const launchStreaming = async (o: { rows?: (count: number) => unknown; limits?: object } = {}) => {
  const seen: string[] = []
  let release: () => void = () => undefined
  const released = new Promise<void>((resolve) => (release = resolve))
  const definition = defineEnclave({
    name: 'streaming',
    svn: 1,
    ocalls: { rows },
    refusals: { enough: 'That is enough' },
    ecalls: {
      count: ecall({ input: v.number(), yields: v.number() }, async function* ({ signal }, to) {
        try {
          for (let n = 0; n < to; n++) {
            seen.push(`yields ${n}`)
            yield await Promise.resolve(n)
          }
        } finally {
          seen.push(`count ended, aborted ${signal.aborted}`)
        }
      }),
      list: ecall({ input: nothing, yields: v.string() }, () => ['a', 'b']),
      none: ecall({ input: nothing, yields: v.string() }, () => undefined as unknown as string[]),
      failing: ecall({ input: v.string(), yields: v.number() }, function* (_, how) {
        yield 1
        if (how === 'refuse') refuse('enough')
        if (how === 'bug') throw new Error('secret text')
        yield 'not a number' as unknown as number
      }),
      sum: ecall({ input: nothing, receives: v.number(), output: v.number() }, async ({ items }) => {
        let sum = 0
        for await (const item of items) sum += item
        return sum
      }),
      first: ecall({ input: nothing, receives: v.number(), output: v.number() }, async ({ items, signal }) => {
        for await (const item of items) {
          await released
          seen.push(`first has ${item}, aborted ${signal.aborted}`)
          return item
        }
        return -1
      }),
      idle: ecall({ input: nothing, receives: v.number(), output: v.number() }, async ({ items }) => {
        await released
        for await (const item of items) return item
        return 0
      }),
      double: ecall({ input: nothing, receives: v.number(), yields: v.number() }, async function* ({ items }) {
        for await (const item of items) yield 2 * item
      }),
      ask: ecall({ input: v.number(), output: v.number(), ocalls: { rows } }, async ({ ocalls }, upTo) => {
        let sum = 0
        for await (const row of ocalls.rows(10)) {
          if (row > upTo) break
          sum += row
        }
        return sum
      }),
      hang: ecall({ input: nothing, output: v.string(), limits: { inFlightMax: 2 } }, async ({ signal }) => {
        signal.addEventListener('abort', () => seen.push('aborted'))
        await released
        return `released, aborted ${signal.aborted}`
      }),
      echo: ecall({ input: v.any(), output: v.any() }, (_, input: unknown) => input),
    },
  })
  const ocalls = { rows: o.rows ?? ((count: number) => Array.from({ length: count }, (_, n) => n)) }
  const world = await launchInThread(definition, { ocalls, limits: { callDeadlineMs: 1000, ...o.limits } })
  return { ...world, ecalls: world.handle.ecalls, seen, release: () => release() }
}

/** All items of a stream. */
export const all = async <T>(stream: AsyncIterable<T>): Promise<T[]> => {
  const items: T[] = []
  for await (const item of stream) items.push(item)
  return items
}
