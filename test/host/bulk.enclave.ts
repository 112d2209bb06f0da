import * as v from 'valibot'
import { defineEnclave, ecall, type EntryName } from '../../enclave/index.js'

const name = (index: number): EntryName => `pending-data/part-${String(index)}`
const fill = (index: number, sizeBytes: number): Uint8Array<ArrayBuffer> => {
  const bytes = new Uint8Array(new ArrayBuffer(sizeBytes))
  for (let at = 0; at < sizeBytes; at++) bytes[at] = (at * 31 + (at >>> 12) + index * 101) & 0xff
  return bytes
}
const isFilled = (index: number, bytes: Uint8Array): boolean => {
  const expected = fill(index, bytes.length)
  return bytes.every((byte, at) => byte === expected[at])
}

/** Large entries, sealed straight to the KMS, and a bulk read of all of them. */
export default defineEnclave({
  name: 'bulk',
  svn: 1,
  ecalls: {
    write: ecall(
      { input: v.object({ count: v.number(), sizeBytes: v.number() }), output: v.number() },
      ({ flow }, { count, sizeBytes }) =>
        flow.checkpoint(
          Object.fromEntries(
            Array.from({ length: count }, (_, index) => [
              name(index),
              { to: 'kms' as const, bytes: fill(index, sizeBytes) },
            ]),
          ),
        ),
    ),
    readAll: ecall({ input: v.number(), output: v.array(v.string()) }, async ({ flow }, count) => {
      const names = Array.from({ length: count }, (_, index) => name(index))
      const found: string[] = []
      for await (const item of flow.readBulk(names)) {
        if ('error' in item) found.push(item.error.code)
        else found.push(isFilled(found.length, item.bytes) ? String(item.bytes.length) : 'other bytes')
      }
      return found
    }),
    cancel: ecall({ input: v.number(), output: v.string() }, async ({ flow }, count) => {
      const controller = new AbortController()
      const names = Array.from({ length: count }, (_, index) => name(index))
      try {
        for await (const item of flow.readBulk(names, { signal: controller.signal }))
          controller.abort(new Error(item.name))
        return 'not cancelled'
      } catch (error) {
        return error instanceof Error ? error.message : 'no reason'
      }
    }),
  },
})
