import * as v from 'valibot'
import { defineEnclave, ecall } from '../../enclave/index.js'

const ENTRY_COUNT = 16
const ENTRY_SIZE_BYTES = 4096

/** What P7 checkpoints: new contents each time, under the same names. */
export default defineEnclave({
  name: 'bench',
  svn: 1,
  ecalls: {
    /** @returns the epoch. */
    checkpoint: ecall({ input: v.number(), output: v.number() }, ({ flow }, round) => {
      const bytes = new Uint8Array(ENTRY_SIZE_BYTES).fill(round)
      return flow.checkpoint(
        Object.fromEntries(Array.from({ length: ENTRY_COUNT }, (_, index) => [`session/${index}`, bytes])),
      )
    }),
  },
})
