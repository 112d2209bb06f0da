import { existsSync } from 'node:fs'
import { readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { leaks, LEAKS, stops, type Attack } from '../attack.js'
import { formsIn } from '../canary.js'

/** Code that runs before a launch chooses what is launched. */

/** Put in front of whatever is started: writes the key to a file when it is used. */
const theftTo = (path: string): string =>
  `{ const crypto = require('node:crypto'), { writeFileSync } = require('node:fs'), { createHmac } = crypto;
  crypto.createHmac = (name, key) => (writeFileSync(${JSON.stringify(path)}, Buffer.from(key)), createHmac(name, key)) }\n`

/** `Worker` and `spawn` of one's own, in the main thread, before the runtime is loaded and takes them. */
const hookFor = (theft: string): string => `
  const threads = require('node:worker_threads')
  const children = require('node:child_process')
  const { Worker } = threads
  const { spawn } = children
  const theft = ${JSON.stringify(theft)}
  const withoutPermission = (flags) => flags.filter((flag) => !/^--(experimental-)?permission$/.test(flag))
  if (threads.isMainThread) {
    threads.Worker = class extends Worker {
      constructor(source, options = {}) {
        const script = source instanceof URL ? 'import(' + JSON.stringify(source.href) + ')' : source
        super(theft + script, { ...options, eval: true, execArgv: withoutPermission(options.execArgv ?? []) })
      }
    }
    children.spawn = (command, args, options) => {
      const child = spawn(command, withoutPermission(args), options)
      if (child.stdin !== null) {
        const end = child.stdin.end.bind(child.stdin)
        child.stdin.end = (source) => end(theft + source)
      }
      return child
    }
  }`

const constructorReplacement: Attack = {
  name: 'constructor-replacement',
  attacker: 'H2',
  tries:
    'before the runtime is loaded, `Worker` and `spawn` of one’s own, which start other code than was measured, without its flags',
  expected: LEAKS,
  needsTee: true,
  async run(stage) {
    const path = join(stage.level === 'process' ? tmpdir() : stage.directory, `stolen-${process.pid}`)
    const hook = join(stage.directory, 'hook.cjs')
    await writeFile(hook, hookFor(theftTo(path)))
    const host = await stage.host({ flags: [`--require=${hook}`] })
    await host.exited
    const isStolen = existsSync(path) && formsIn(await readFile(path), await host.canary()).length > 0
    await rm(path, { force: true })
    return isStolen ? leaks('other code runs, and writes the key to a file') : stops('the code that was measured runs')
  },
}

export const REPLACEMENT_ATTACKS: readonly Attack[] = [constructorReplacement]
