import { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Duplex } from 'node:stream'
import { MessagePort, Worker } from 'node:worker_threads'
import { isKeyriseError } from '../../../protocol/errors.js'
import { launchTarget } from '../../enclave/target.js'
import { leaks, LEAKS, stops, STOPPED, type Attack } from '../attack.js'
import { formsIn } from '../canary.js'
import { Victim } from '../victim.js'

/** Code that runs before a launch chooses what is launched. */

/** In front of the script, wherever it runs: has the key go out, by a port or into a file. */
const theftBy = (way: string): string =>
  `{ const crypto = require('node:crypto'), { createHmac } = crypto, tell = ${way};
  crypto.createHmac = (name, key) => (tell(Buffer.from(key)), createHmac(name, key)) }\n`
/** Node’s functions as they are before the runtime takes them away. */
const byFile = (path: string): string =>
  `((fs) => (bytes) => fs.writeSync(fs.openSync(${JSON.stringify(path)}, 'w'), bytes))({ ...require('node:fs') })`

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
    await writeFile(hook, hookFor(theftBy(byFile(path))))
    const host = await stage.host({ flags: [`--require=${hook}`] })
    await host.exited
    const isStolen = existsSync(path) && formsIn(await readFile(path), await host.canary()).length > 0
    await rm(path, { force: true })
    return isStolen ? leaks('other code runs, and writes the key to a file') : stops('the code that was measured runs')
  },
}

/** Runs instead of what was measured, and shows it by its exit code. */
const OTHER_CODE = 9
const OTHER_SCRIPT = `process.exit(${OTHER_CODE})`

const imageSwap: Attack = {
  name: 'image-swap',
  attacker: 'H1',
  tries:
    'an image whose string becomes another one when it is read again, and one whose measurement is another string’s. Bare: a file that is replaced before it is loaded',
  expected: STOPPED,
  async run(stage) {
    const { image, level, platform } = stage
    if (level === 'bare') {
      const worker = new Worker(OTHER_SCRIPT, { eval: true })
      const [code] = (await once(worker, 'exit')) as [number]
      return code === OTHER_CODE ? leaks('whatever lies there runs') : stops('refused')
    }
    const manifest = image.source.slice(0, image.source.indexOf('\n') + 1)
    for (const honestCount of [0, 1, 2, 3]) {
      let readCount = 0
      const swapped = {
        ...image,
        get source() {
          return readCount++ < honestCount ? image.source : manifest + OTHER_SCRIPT
        },
      }
      try {
        const victim = new Victim(launchTarget(platform, swapped, { isolation: level }))
        const ended = victim.instance.exited.then(({ reason }) => reason)
        const first = await Promise.race([ended, victim.ready().catch(() => ended)])
        if (typeof first === 'string') return leaks(`other code runs than was measured: ${first}`)
        await victim.end()
      } catch (error) {
        if (!isKeyriseError(error, 'ERR_IMAGE_INVALID')) throw error
      }
    }
    return stops('ERR_IMAGE_INVALID, or the string that was measured runs')
  },
}

const BY_PORT = `((port) => (bytes) => port.postMessage(bytes))(require('node:worker_threads').parentPort)`

interface StartMessage {
  readonly type?: unknown
  readonly doEval?: unknown
  readonly filename: string
}

/** Changes the message by which Node starts a worker’s script. */
const patchPorts = (): void => {
  const prototype = MessagePort.prototype as { postMessage: (message: StartMessage, transfer: unknown) => void }
  const { postMessage } = prototype
  prototype.postMessage = function (message: StartMessage | undefined, transfer) {
    const isScript = message?.type === 'loadScript'
    const script = message?.doEval === 'classic' ? message.filename : `import(${JSON.stringify(message?.filename)})`
    const changed = isScript ? { ...message, doEval: 'classic', filename: theftBy(BY_PORT) + script } : message
    Reflect.apply(postMessage, this, [changed, transfer])
  }
}

/** Changes the command of a process, and the script that it is given. */
const patchProcesses = (path: string): void => {
  const spawned = ChildProcess.prototype as unknown as { spawn: (options: { args: string[] }) => unknown }
  const { spawn } = spawned
  spawned.spawn = function (options) {
    options.args = options.args.filter((flag) => !/^--(experimental-)?permission$/.test(flag))
    return Reflect.apply(spawn, this, [options])
  }
  const writable = Duplex.prototype as unknown as {
    end: (this: unknown, chunk: unknown, ...rest: unknown[]) => unknown
  }
  const { end } = writable
  writable.end = function (chunk, ...rest) {
    const isScript = typeof chunk === 'string' && chunk.startsWith('//keyrise')
    return Reflect.apply(end, this, [isScript ? theftBy(byFile(path)) + chunk : chunk, ...rest])
  }
}

const patchedRelaunch: Attack = {
  name: 'patched-relaunch',
  attacker: 'H2',
  tries:
    'after a launch and before the next one: prototypes of Node’s own that a launch goes by, patched to put other code in front of what was measured',
  expected: LEAKS,
  needsTee: true,
  async run(stage) {
    await (await stage.launch()).end()
    const path = join(tmpdir(), `stolen-${process.pid}`)
    const told: unknown[] = []
    process.on('worker', (worker) => worker.on('message', (message) => told.push(message)))
    patchPorts()
    patchProcesses(path)
    const victim = await stage.launch()
    await victim.call('sign', new Uint8Array(8))
    const canary = await victim.canary()
    const parts = told.filter((part): part is Uint8Array => part instanceof Uint8Array)
    if (existsSync(path)) parts.push(await readFile(path))
    await rm(path, { force: true })
    return parts.some((part) => formsIn(part, canary).length > 0)
      ? leaks('other code runs in front of it, and tells the key')
      : stops('the code that was measured runs')
  },
}

export const REPLACEMENT_ATTACKS: readonly Attack[] = [imageSwap, constructorReplacement, patchedRelaunch]
