import { Buffer } from 'node:buffer'
import * as v from 'valibot'
import { defineEnclave, ecall, type CheckpointValue, type EntryName } from '../../enclave/index.js'

/** What the product’s own scenarios run: an enclave that keeps what it is told to, in one checkpoint a call. */

const NAME = v.pipe(
  v.string(),
  v.transform((name) => name as EntryName),
)
const ENTRY = v.object({ name: NAME, value: v.string(), direct: v.optional(v.boolean()) })

const ecalls = {
  write: ecall({ input: v.array(ENTRY), output: v.number() }, ({ flow }, entries) => {
    const values: Partial<Record<EntryName, CheckpointValue>> = {}
    for (const { name, value, direct } of entries) {
      const bytes = new Uint8Array(Buffer.from(value))
      values[name] = direct === true ? { to: 'kms', bytes } : bytes
    }
    return flow.checkpoint(values)
  }),
  remove: ecall({ input: v.array(NAME), output: v.number() }, ({ flow }, names) => flow.delete(names)),
}

export const notebook = defineEnclave({ name: 'notebook', svn: 1, ecalls })

/** The next version of it: what was a password is called otherwise, and one entry is left behind. */
export const newerNotebook = defineEnclave({
  name: 'notebook',
  svn: 2,
  ecalls,
  migrate: async ({ list, read }) => {
    const entries: Partial<Record<EntryName, CheckpointValue | 'keep'>> = {}
    for (const { name } of list()) if (name !== 'password/old') entries[name] = 'keep'
    return { ...entries, 'session/renamed': { to: 'kms', bytes: await read('password/old') } }
  },
})

/** A value that stands nowhere else: it can be searched for. */
export const secretText = (label: string): string => `${label}: 7f3a-Q9xw-82Lk-vB4t`
export const secretBytes = (label: string): Uint8Array => new Uint8Array(Buffer.from(secretText(label)))
