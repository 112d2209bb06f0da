import { spawn, type ChildProcess } from 'node:child_process'
import { closeSync } from 'node:fs'
import type { Socket } from 'node:net'
import { concatBytes, type Bytes } from '../protocol/bytes.js'
import { encodeCbor } from '../protocol/cbor.js'
import { KeyriseError } from '../protocol/errors.js'
import { CONFIGURATION_SIZE_BYTES_MAX } from '../protocol/limits.js'
import type { Port } from '../protocol/ports.js'
import { SocketPort } from '../protocol/socket-port.js'
import { BlockingPort } from './blocking-port.js'
import type { ProcessCommand, ProcessRecipe } from './process-recipe.js'
import { pin } from './worker.js'

/** A process that runs one string, from outside. */
export interface IsolatedProcess {
  readonly ecalls: Port
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
export const startProcess = (recipe: ProcessRecipe, source: string, start: ProcessStart): IsolatedProcess => {
  const command = recipe.command()
  const child = spawnCommand(command)
  const ended = endOf(child)
  let reason: string | undefined
  const end = (why: string): void => {
    reason ??= why
    child.kill('SIGKILL')
  }
  // Where the process could not be started there may be no sockets.
  const sockets = child.stdio.slice(3, 7) as (Socket | null)[]
  if (sockets.some((socket) => socket === null)) throw new KeyriseError('ERR_LAUNCH_FAILED', { detail: 'no process' })
  const malformed = (): void => end('a malformed message')
  for (const socket of sockets) pin(socket as Socket)
  const [ecalls, ocalls, platform] = (sockets as Socket[])
    .slice(0, 3)
    .map((socket) => new SocketPort(socket, { defer, malformed, waitsForReader: false })) as [
    SocketPort,
    SocketPort,
    SocketPort,
  ]
  hide(child, sockets[2] as Socket)
  sendScript(child, source)
  ;(sockets[2] as Socket).write(encodeStart(start, command.foreign))
  const stopWatching = recipe.endsWithHost ? undefined : watch(child)
  const exited = ended.then(async (exit) => {
    stopWatching?.()
    command.release()
    await lastWords([ecalls, ocalls])
    return { reason: reason ?? exit }
  })
  return {
    ecalls: withBlocking(ecalls, sockets[3] as Socket, malformed),
    ocalls,
    platform,
    exited,
    kill: async () => {
      end('killed')
      await ended
    },
  }
}

/** As it is when this module is loaded: a live binding could be changed under it later. */
const startCommand = spawn

const spawnCommand = (command: ProcessCommand): ChildProcess => {
  const { command: path, args, user, files } = command
  try {
    return startCommand(path, args, {
      env: {},
      cwd: '/',
      // A session of its own: what a terminal sends to the host’s group, Ctrl-C say, does not reach the enclave.
      detached: true,
      stdio: ['pipe', 'ignore', 'ignore', 'pipe', 'pipe', 'pipe', 'pipe', ...files],
      ...(user === undefined ? {} : { uid: user, gid: user }),
    })
  } finally {
    for (const file of files) closeSync(file)
  }
}

/**
 * Where no signal of the kernel's does it: a shell that waits for its input to end, which it does with this process, and then
 * ends the enclave. @returns what ends the watch.
 */
const watch = (child: ChildProcess): (() => void) => {
  const watcher = spawn('/bin/sh', ['-c', 'read -r _; kill -9 "$1"', 'sh', String(child.pid)], {
    env: {},
    cwd: '/',
    detached: true,
    stdio: ['pipe', 'ignore', 'ignore'],
  })
  pin(watcher)
  watcher.on('error', () => undefined)
  watcher.unref()
  ;(watcher.stdin as Partial<Socket>).unref?.()
  return () => void watcher.kill('SIGKILL')
}

/** Not among the process’s active handles, where any code could pick them up, nor called through a prototype that any code can patch. */
const hide = (child: ChildProcess, platform: Socket): void => {
  pin(child)
  platform.unref()
}

/** Where the descriptor of the socket for switchless calls can be had; elsewhere there are none. */
const withBlocking = (calls: SocketPort, socket: Socket, malformed: () => void): Port => {
  socket.unref()
  const { _handle: handle } = socket as unknown as { readonly _handle?: { readonly fd?: number } | null }
  const descriptor = handle?.fd ?? -1
  return descriptor < 0 ? calls : new BlockingPort({ calls, socket, descriptor, malformed })
}

const sendScript = (child: ChildProcess, source: string): void => {
  // It may die before it has read everything; its end says so.
  child.stdin?.on('error', () => undefined)
  child.stdin?.end(source, 'utf8')
}

/** In two bytes each: how many descriptors are to be closed, the size of the rest, those descriptors; then the rest. */
export const encodeStart = (start: ProcessStart, foreign: readonly number[]): Bytes => {
  if (start.configuration.length > CONFIGURATION_SIZE_BYTES_MAX)
    throw new KeyriseError('ERR_CONFIG_INVALID', { detail: 'the configuration is too large' })
  const encoded = encodeCbor({ ...start })
  const header = new DataView(new ArrayBuffer(4 + 2 * foreign.length))
  for (const [index, number] of [foreign.length, encoded.length, ...foreign].entries())
    header.setUint16(2 * index, number)
  return concatBytes(new Uint8Array(header.buffer), encoded)
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
