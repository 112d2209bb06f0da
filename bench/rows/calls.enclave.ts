import * as v from 'valibot'
import { defineEnclave, ecall } from '../../enclave/index.js'

const bytes = v.instance(Uint8Array)

/** What P1, P2 and P11 call: declared, checked by its schemas, and otherwise nothing. */
export default defineEnclave({
  name: 'bench-calls',
  svn: 1,
  ecalls: {
    echo: ecall({ input: bytes, output: bytes }, (_, given) => given),
    echoNow: ecall({ input: bytes, output: bytes, switchless: true }, (_, given) => given),
  },
})
