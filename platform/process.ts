import { spawn, type ChildProcess } from 'node:child_process'
import type { Socket } from 'node:net'
import { allocate, concatBytes, type Bytes } from '../protocol/bytes.js'
import { encodeCbor } from '../protocol/cbor.js'
import { KeyriseError } from '../protocol/errors.js'
import { CONFIGURATION_SIZE_BYTES_MAX } from '../protocol/limits.js'
import { SocketPort } from '../protocol/socket-port.js'
import { nodeFlags } from './process-recipe.js'
import { pin } from './worker.js'

/** A process that runs one string, from outside. */
export interface IsolatedProcess {
  readonly ecalls: SocketPort
  readonly ocalls: SocketPort
  /** For the platform alone. Closing it tells the enclave to wipe and to end. */
  readonly platform: SocketPort
  /** Resolves, never rejects, when the process is gone and what it said last was delivered. */
  readonly exited: Promise<{ readonly reason: string }>
  /** Ends it at once. */
  readonly kill: () => Promise<void>
}

/** What the platform tells an enclave in a process; enclave/launched.ts reads it. */
export interface ProcessStart {
  readonly configuration: Bytes
  readonly measurement: Bytes
  readonly flow: string
  readonly task: string
}

/** Taken before anybody could replace it. */
const defer = process.nextTick.bind(process) as (work: () => void) => void

/** Starts `source`, exactly as given: it is written to the process’s standard input, and lies nowhere in between. */
export const startProcess = (source: string, start: ProcessStart): IsolatedProcess => {
  const child = spawn(process.execPath, nodeFlags(process.versions.node), {
    env: {},
    cwd: '/',
    // A session of its own: what a terminal sends to the host’s group, Ctrl-C say, does not reach the enclave.
    detached: true,
    stdio: ['pipe', 'ignore', 'ignore', 'pipe', 'pipe', 'pipe'],
  })
  const ended = endOf(child)
  let reason: string | undefined
  const end = (why: string): void => {
    reason ??= why
    child.kill('SIGKILL')
  }
  // Where the process could not be started there may be no sockets.
  const sockets = child.stdio.slice(3) as (Socket | null)[]
  if (sockets.some((socket) => socket === null)) throw new KeyriseError('ERR_LAUNCH_FAILED', { detail: 'no process' })
  const [ecalls, ocalls, platform] = (sockets as Socket[]).map((socket) => {
    pin(socket)
    const malformed = (): void => end('a malformed message')
    return new SocketPort(socket, { defer, malformed, waitsForReader: false })
  }) as [SocketPort, SocketPort, SocketPort]
  hide(child, sockets[2] as Socket)
  sendScript(child, source)
  ;(sockets[2] as Socket).write(encodeStart(start))
  const exited = ended.then(async (exit) => {
    await lastWords([ecalls, ocalls])
    return { reason: reason ?? exit }
  })
  return {
    ecalls,
    ocalls,
    platform,
    exited,
    kill: async () => {
      end('killed')
      await ended
    },
  }
}

/** Not among the process’s active handles, where any code could pick them up, nor called through a prototype that any code can patch. */
const hide = (child: ChildProcess, platform: Socket): void => {
  pin(child)
  platform.unref()
}

const sendScript = (child: ChildProcess, source: string): void => {
  // It may die before it has read everything; its end says so.
  child.stdin?.on('error', () => undefined)
  child.stdin?.end(source, 'utf8')
}

/** How many files to close (enclave/process-start.ts), the size of the rest in two bytes, the rest. */
const encodeStart = (start: ProcessStart): Bytes => {
  if (start.configuration.length > CONFIGURATION_SIZE_BYTES_MAX)
    throw new KeyriseError('ERR_CONFIG_INVALID', { detail: 'the configuration is too large' })
  const encoded = encodeCbor({ ...start })
  const header = allocate(3)
  new DataView(header.buffer).setUint16(1, encoded.length)
  return concatBytes(header, encoded)
}

/** Exit codes of enclave/boot.ts, and a shell’s for what it cannot run. */
const EXIT_REASONS: ReadonlyMap<number | null, string> = new Map([
  [0, 'ended'],
  [70, 'failed'],
  [126, 'not started'],
  [127, 'not started'],
])

const endOf = (child: ChildProcess): Promise<string> =>
  new Promise((resolve) => {
    child.once('error', () => resolve('not started'))
    child.once('exit', (code, signal) =>
      resolve(signal === null ? (EXIT_REASONS.get(code) ?? `exit code ${String(code)}`) : `ended by ${signal}`),
    )
  })

const LAST_WORDS_TIMEOUT_MS = 1_000

/** Waits until what was sent before the end has been delivered to those who listen. */
const lastWords = async (ports: readonly SocketPort[]): Promise<void> => {
  let timer: NodeJS.Timeout | undefined
  const closed = Promise.all(ports.filter((port) => port.isListening).map((port) => port.closed))
  await Promise.race([closed, new Promise((resolve) => (timer = setTimeout(resolve, LAST_WORDS_TIMEOUT_MS)))])
  clearTimeout(timer)
}
