import { appendFileSync } from 'node:fs'
import files, { open } from 'node:fs/promises'
import { ServerResponse } from 'node:http'
import { syncBuiltinESMExports } from 'node:module'

/**
 * Loaded ahead of a process of the product (`node --import`): counts the moments before and after each operation on files and
 * each HTTP answer, and ends the process by SIGKILL at the one that the URL names: `countdown.js?log=FILE&at=N`. The file gets
 * that moment, or at a regular exit how many there were.
 */
const query = new URL(import.meta.url).searchParams
const log = query.get('log') ?? '/dev/null'
const at = Number(query.get('at') ?? 'NaN')
let count = 0

const moment = (name: string): void => {
  if (count++ !== at) return
  appendFileSync(log, `${String(at)} ${name}\n`)
  process.kill(process.pid, 'SIGKILL')
}
;(globalThis as { keyriseMoment?: (name: string) => void }).keyriseMoment = moment
process.on('exit', () => {
  appendFileSync(log, `${String(count)} moments\n`)
})

type Operation = (...operands: unknown[]) => Promise<unknown>

const surround = (holder: object, names: readonly string[]): void => {
  const operations = holder as Record<string, Operation>
  for (const name of names) {
    const original = operations[name] as Operation
    operations[name] = async function (this: unknown, ...operands: unknown[]) {
      moment(`before ${name}`)
      const answer = await original.apply(this, operands)
      moment(`after ${name}`)
      return answer
    }
  }
}

const handle = await open(new URL(import.meta.url), 'r')
surround(Object.getPrototypeOf(handle) as object, ['read', 'write', 'sync', 'truncate'])
await handle.close()
surround(files, ['open', 'rename', 'unlink', 'mkdir', 'readdir'])
syncBuiltinESMExports()

const responses = ServerResponse.prototype as unknown as { end: (...operands: unknown[]) => unknown }
const { end } = responses
responses.end = function (this: ServerResponse, ...operands: unknown[]) {
  moment('before answer')
  const answer = end.apply(this, operands)
  moment('after answer')
  return answer
}
