import * as v from 'valibot'
import { defineEnclave, ecall } from '../../enclave/index.js'

const nothing = v.optional(v.undefined())
const bytes = v.instance(Uint8Array)
let total = 0

/** A schema that checks later than a switchless call can wait. */
const late = v.pipeAsync(
  v.number(),
  v.checkAsync(() => Promise.resolve(true)),
)

export default defineEnclave({
  name: 'switchless',
  svn: 1,
  refusals: { 'not-today': 'The office is closed' },
  ecalls: {
    increment: ecall({ input: nothing, output: v.number(), switchless: true }, () => ++total),
    echo: ecall({ input: bytes, output: bytes, switchless: true }, (_, input) => input),
    later: ecall(
      { input: nothing, output: v.number(), switchless: true },
      () => Promise.resolve(1) as unknown as number,
    ),
    checkedLater: ecall({ input: late, output: v.number(), switchless: true }, (_, input) => input),
    plain: ecall({ input: nothing, output: v.number() }, () => total),
    fail: ecall({ input: nothing, output: v.number(), switchless: true }, () => {
      throw new Error('secret text')
    }),
    spin: ecall({ input: nothing, output: v.number(), switchless: true }, () => {
      for (;;) total += 0
    }),
    quit: ecall({ input: nothing, output: v.number(), switchless: true }, () => process.exit(0)),
  },
})
