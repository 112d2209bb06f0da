import { Buffer } from 'node:buffer'
import * as v from 'valibot'
import { defineEnclave, ecall, type CheckpointValue, type EntryName } from '../../enclave/index.js'

/** What the product’s own scenarios run: an enclave that keeps what it is told to, in one checkpoint a call. */

const NAME = v.pipe(
  v.string(),
  v.transform((name) => name as EntryName),
)
const ENTRY = v.object({ name: NAME, value: v.string(), direct: v.optional(v.boolean()) })

export const notebook = defineEnclave({
  name: 'notebook',
  svn: 1,
  ecalls: {
    write: ecall({ input: v.array(ENTRY), output: v.number() }, ({ flow }, entries) => {
      const values: Partial<Record<EntryName, CheckpointValue>> = {}
      for (const { name, value, direct } of entries) {
        const bytes = new Uint8Array(Buffer.from(value))
        values[name] = direct === true ? { to: 'kms', bytes } : bytes
      }
      return flow.checkpoint(values)
    }),
    remove: ecall({ input: v.array(NAME), output: v.number() }, ({ flow }, names) => flow.delete(names)),
  },
})

/** A value that stands nowhere else: it can be searched for. */
export const secretText = (label: string): string => `${label}: 7f3a-Q9xw-82Lk-vB4t`
export const secretBytes = (label: string): Uint8Array => new Uint8Array(Buffer.from(secretText(label)))
