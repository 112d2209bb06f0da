import { Buffer } from 'node:buffer'
import * as v from 'valibot'
import { defineScenario } from '../../../faults/index.js'
import { defineEnclave, ecall, type CheckpointValue, type EntryName } from '../../../enclave/index.js'
import { secretBytes, secretText } from '../notebook.js'

/** Entries sealed straight to the KMS that are read, and stored again, as streams through it. */
const COUNT = 3
const nameOf = (index: number): EntryName => `intermediate-result/${index}`

const archive = defineEnclave({
  name: 'archive',
  svn: 1,
  ecalls: {
    fill: ecall({ input: v.string(), output: v.number() }, ({ flow }, label) => {
      const entries: Partial<Record<EntryName, CheckpointValue>> = {}
      for (let index = 0; index < COUNT; index++) {
        const bytes = new Uint8Array(Buffer.from(secretText(`${label} ${index}`).padEnd(5000, '.')))
        entries[nameOf(index)] = { to: 'kms', bytes }
      }
      return flow.checkpoint(entries)
    }),
    sum: ecall({ input: v.undefined(), output: v.number() }, async ({ flow }) => {
      let sum = 0
      for await (const item of flow.readBulk(Array.from({ length: COUNT }, (_, index) => nameOf(index)))) {
        if ('error' in item) throw item.error
        for (const byte of item.bytes) sum += byte
      }
      await flow.checkpoint({ 'final-result/sum': new Uint8Array(Buffer.from(String(sum))) })
      return sum
    }),
    reseal: ecall({ input: v.undefined(), output: v.number() }, async ({ flow }) => {
      let count = 0
      for await (const item of flow.reseal()) {
        if ('error' in item) throw item.error
        count++
      }
      return count
    }),
  },
})

export default defineScenario({
  name: 'bulk',
  flows: {
    archive: {
      enclave: archive,
      steps: [
        ({ ecalls }) => ecalls.fill('raw'),
        ({ ecalls, crash }) => crash().then(() => ecalls.sum()),
        ({ operator }) => operator.rotate(),
        ({ ecalls }) => ecalls.reseal(),
      ],
    },
  },
  secrets: ['raw 0', 'raw 1', 'raw 2'].map(secretBytes),
})
