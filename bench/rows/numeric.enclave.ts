import * as v from 'valibot'
import { defineEnclave, ecall } from '../../enclave/index.js'
import { NUMERIC_WORK } from './numeric.js'

const call = { input: v.number(), output: v.number() }

/** What P12 times. */
export default defineEnclave({
  name: 'bench-numeric',
  svn: 1,
  ecalls: {
    train: ecall(call, (_, count) => NUMERIC_WORK.train(count)),
    chacha: ecall(call, (_, count) => NUMERIC_WORK.chacha(count)),
  },
})
