import childProcess, { type ChildProcess } from 'node:child_process'
import { existsSync } from 'node:fs'
import { readFile, rm } from 'node:fs/promises'
import { syncBuiltinESMExports } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import workerThreads, { type WorkerOptions } from 'node:worker_threads'
import { leaks, LEAKS, stops, type Attack } from '../attack.js'
import { formsIn } from '../canary.js'

/** Code that runs before a launch chooses what is launched. */

const theftTo = (path: string): string =>
  `{ const crypto = require('node:crypto'), { writeFileSync } = require('node:fs'), { createHmac } = crypto;
  crypto.createHmac = (name, key) => (writeFileSync(${JSON.stringify(path)}, Buffer.from(key)), createHmac(name, key)) }\n`

const withoutPermission = (flags: readonly string[]): string[] =>
  flags.filter((flag) => flag !== '--permission' && flag !== '--experimental-permission')

const replaceWorker = (theft: string): void => {
  const { Worker } = workerThreads
  const open = workerThreads as unknown as { Worker: unknown }
  open.Worker = class extends Worker {
    constructor(source: string | URL, options: WorkerOptions = {}) {
      const script = source instanceof URL ? `import(${JSON.stringify(source.href)})` : source
      super(theft + script, { ...options, eval: true, execArgv: withoutPermission(options.execArgv ?? []) })
    }
  }
}

type Spawn = (command: string, args: readonly string[], options: object) => ChildProcess

const replaceSpawn = (theft: string): void => {
  const open = childProcess as unknown as { spawn: Spawn }
  const { spawn } = open
  open.spawn = (command, args, options) => {
    const child = spawn(command, withoutPermission(args), options)
    const { stdin } = child
    if (stdin !== null) {
      const end = stdin.end.bind(stdin) as (text: string) => typeof stdin
      stdin.end = ((source: string) => end(theft + source)) as typeof stdin.end
    }
    return child
  }
}

const constructorReplacement: Attack = {
  name: 'constructor-replacement',
  attacker: 'H2',
  tries:
    'before the launch, `Worker` and `spawn` of one’s own, which start other code than was measured, without its flags',
  expected: LEAKS,
  needsTee: true,
  async run(stage) {
    const path = join(stage.level === 'process' ? tmpdir() : stage.directory, `stolen-${process.pid}`)
    replaceWorker(theftTo(path))
    replaceSpawn(theftTo(path))
    syncBuiltinESMExports()
    const victim = await stage.launch()
    await victim.call('sign', new Uint8Array(8))
    const canary = await victim.canary()
    const isStolen = existsSync(path) && formsIn(await readFile(path), canary).length > 0
    await rm(path, { force: true })
    return isStolen ? leaks('other code runs, and writes the key to a file') : stops('the code that was measured runs')
  },
}

export const REPLACEMENT_ATTACKS: readonly Attack[] = [constructorReplacement]
