import { randomFillSync } from 'node:crypto'
import * as v from 'valibot'
import { defineEnclave, ecall, ocall, wipeAtExit } from '../../enclave/index.js'
import { COPY_COUNT, keeperOf } from './keeper.js'
import { CANARY_SIZE_BYTES } from './mask.js'

const nothing = v.optional(v.undefined())
const bytes = v.instance(Uint8Array<ArrayBuffer>)
const ask = ocall({ input: v.object({ question: v.string() }), output: v.pipe(v.string(), v.maxLength(10)) })

/** In a buffer of its own, outside the engine’s heap, as docs/threat-model.md asks of authors. */
const key = randomFillSync(new Uint8Array(new ArrayBuffer(CANARY_SIZE_BYTES)))
wipeAtExit(key)
/** One for each task. */
const copies = Array.from({ length: COPY_COUNT }, () => {
  const copy = new Uint8Array(new ArrayBuffer(CANARY_SIZE_BYTES))
  copy.set(key)
  wipeAtExit(copy)
  return copy
})
const keeper = keeperOf(key)

export default defineEnclave({
  name: 'keeper',
  svn: 1,
  ocalls: { ask },
  ecalls: {
    add: ecall({ input: v.object({ a: v.number(), b: v.number() }), output: v.number() }, (_, sum) => keeper.add(sum)),
    increment: ecall({ input: nothing, output: v.number() }, () => keeper.increment()),
    total: ecall({ input: nothing, output: v.number() }, () => keeper.total()),
    sign: ecall({ input: bytes, output: bytes }, (_, message) => keeper.sign(message)),
    echo: ecall({ input: v.object({ bytes }), output: v.object({ bytes }) }, (_, input) => keeper.echo(input)),
    size: ecall({ input: bytes, output: v.number() }, (_, input) => keeper.size(input)),
    checkThenUse: ecall({ input: bytes, output: v.number() }, (_, input) => keeper.checkThenUse(input)),
    keyName: ecall({ input: nothing, output: bytes }, () => keeper.keyName()),
    greeting: ecall({ input: nothing, output: bytes }, () => keeper.greeting()),
    crash: ecall({ input: nothing, output: v.number() }, () => keeper.crash()),
    throwLater: ecall({ input: nothing, output: v.number() }, () => keeper.throwLater()),
    rejectLater: ecall({ input: nothing, output: v.number() }, () => keeper.rejectLater()),
    print: ecall({ input: nothing, output: v.number() }, () => keeper.print()),
    merge: ecall({ input: v.any(), output: v.string() }, (_, input: Record<string, unknown>) => keeper.merge(input)),
    measure: ecall({ input: v.any(), output: v.number() }, (_, input: Uint8Array) => keeper.measure(input)),
    kind: ecall({ input: v.any(), output: v.string() }, (_, input) => keeper.kind(input)),
    hoard: ecall({ input: nothing, output: v.number() }, () => keeper.hoard()),
    spin: ecall({ input: nothing, output: v.number() }, () => keeper.spin()),
    hang: ecall({ input: nothing, output: v.number() }, () => keeper.hang()),
    probe: ecall({ input: nothing, output: v.array(v.string()) }, () => keeper.probe()),
    surroundings: ecall({ input: nothing, output: v.array(v.string()) }, () => keeper.surroundings()),
    spell: ecall({ input: nothing, output: v.number() }, () => keeper.spell()),
    escapes: ecall({ input: nothing, output: v.array(v.string()) }, () => keeper.escapes()),
    softIntrinsics: ecall({ input: nothing, output: v.array(v.string()) }, () => keeper.softIntrinsics()),
    replaceCrypto: ecall({ input: nothing, output: v.string() }, () => keeper.replaceCrypto()),
    consult: ecall(
      { input: v.object({ question: v.string() }), output: v.string(), ocalls: { ask } },
      async ({ ocalls }, question) => {
        const answer = await ocalls.ask(question)
        keeper.increment()
        return answer
      },
    ),
    /** Keeps the copies from being collected. */
    held: ecall({ input: nothing, output: v.number() }, () => copies.length),
    reveal: ecall({ input: nothing, output: bytes }, () => keeper.reveal()),
  },
})
