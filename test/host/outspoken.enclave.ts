import { defineEnclave, ecall, refuse } from '../../enclave/index.js'
import * as v from 'valibot'

/** It fails and prints in every way, with text that must stay inside a production image. */

export const CANARY = 'canary text'

class OwnError extends Error {
  override readonly name = 'OwnError'
  readonly hint = `${CANARY} of a field`
}

const failDeep = (text: string): never => {
  throw new OwnError(`${CANARY} ${text}`, { cause: new RangeError(`${CANARY} of a cause`) }) // here: throws
}

const answers = { input: v.string(), output: v.string() }

export default defineEnclave({
  name: 'outspoken',
  svn: 1,
  ecalls: {
    throws: ecall(answers, (_, text) => failDeep(text)),
    rejects: ecall(answers, async (_, text) => {
      await Promise.resolve()
      return failDeep(text) // here: rejects
    }),
    throwsText: ecall(answers, () => {
      // eslint-disable-next-line @typescript-eslint/only-throw-error -- authors do
      throw CANARY
    }),
    refuses: ecall(answers, () => refuse('too-late')),
    refusesOddly: ecall(answers, () => refuse(CANARY)),
    repliesWrongly: ecall(answers, () => 7 as unknown as string),
    prints: ecall(answers, (_, text) => {
      console.log(`${CANARY} %s`, text, { list: [1, 'two', new Uint8Array(2)] })
      console.error(new OwnError(`${CANARY} printed`))
      process.stdout.write(`${CANARY} written\n`)
      console.warn(`${CANARY} \u001b[2Jcursor`)
      return text
    }),
    printsMuch: ecall({ input: v.number(), output: v.number() }, (_, count) => {
      for (let index = 0; index < count; index++) console.log(`line ${String(index)}`)
      return count
    }),
    diesLater: ecall(answers, (_, text) => {
      setTimeout(() => failDeep(text), 1)
      return new Promise<string>(() => undefined)
    }),
    lastWords: ecall(answers, (_, text) => {
      console.log(`${CANARY} first`)
      void Promise.reject(new OwnError(`${CANARY} ${text}`))
      return new Promise<string>(() => undefined)
    }),
  },
  refusals: { 'too-late': 'the round is over' },
})
