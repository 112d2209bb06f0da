import { executionAsyncResource } from 'node:async_hooks'
import crypto from 'node:crypto'
import workerThreads from 'node:worker_threads'
import { overwriteFreed } from '../protocol/crypto/freed-memory.js'
import { disposeAll } from '../protocol/live-secrets.js'
import { diagnostics } from './diagnostics.js'
import { hardenIntrinsics } from './harden.js'
import { startInProcess } from './process-start.js'

/**
 * The first module of every image; its import hardens the realm before anything else runs (security.md, "Launch recipe").
 * The order matters: ways to die silently first, then no output, then no way into Node, then the intrinsics.
 */

/** How an instance ends by itself, as exit codes that the platform names. */
export const EXIT_CODES = { wiped: 0, failed: 70 } as const

const wipers = new Set<() => void>()
let isOverwritten = false

/** Runs `wipe` before this instance ends in any way that runs our code. */
export const wipeAtExit = (wipe: () => void): void => {
  wipers.add(wipe)
}

const wipeAll = (): void => {
  for (const wipe of wipers) {
    wipers.delete(wipe)
    try {
      wipe()
    } catch {
      // The others are wiped all the same, and nobody may learn what failed.
    }
  }
  // What no wiper knows: keys of a flow that has not finished opening, what calls under way hold, what authors were given.
  disposeAll()
  // A process gives its memory back as a whole. In a worker once is enough: the exit event follows `endInstance`.
  if (!isOverwritten && !workerThreads.isMainThread) overwriteFreed()
  isOverwritten = true
}

/** Runs `flush` when nothing else is left to be done: what was posted last is on its way then. */
export const flushAtExit = (flush: () => void): void => {
  process.on('exit', flush)
}

const { exit } = process

/** Wipes every secret and ends this instance. */
export const endInstance = (code: number): never => {
  wipeAll()
  return exit(code)
}

const silence = (): void => {
  for (const key of Object.keys(console)) {
    if (typeof console[key as keyof Console] === 'function')
      Object.defineProperty(console, key, { value: () => {}, writable: false, configurable: false })
  }
  const sink = Object.freeze({
    write: () => true,
    end: () => {},
    on: () => sink,
    once: () => sink,
    emit: () => false,
    isTTY: false,
  })
  for (const stream of ['stdout', 'stderr', 'stdin'])
    Object.defineProperty(process, stream, { value: sink, writable: false, configurable: false })
}

/** Ways from `process` into native code, other modules, other processes and handles. */
// prettier-ignore
const PROCESS_REMOVED = [
  'binding', '_linkedBinding', 'dlopen', 'report', 'kill', '_kill', '_rawDebug', 'getBuiltinModule', 'mainModule',
  '_eval', '_getActiveHandles', '_getActiveRequests', '_debugProcess', '_debugEnd', '_startProfilerIdleNotifier',
  '_stopProfilerIdleNotifier', '_preload_modules', 'openStdin', 'loadEnvFile', 'setSourceMapsEnabled',
  'setUncaughtExceptionCaptureCallback', 'execve', 'finalization', 'abort', 'chdir', 'umask', 'setuid', 'setgid',
  'seteuid', 'setegid', 'setgroups', 'initgroups', 'send', 'disconnect', 'channel', 'stdio',
] as const

const closeProcess = (): void => {
  for (const key of PROCESS_REMOVED)
    Object.defineProperty(process, key, { value: undefined, writable: false, configurable: false })
  if (diagnostics() === undefined) Error.stackTraceLimit = 0
}

/** Functions on open files ask the permission model nothing: in a worker, 1 is the host’s own output. */
// prettier-ignore
const DESCRIPTOR_FUNCTIONS = [
  'read', 'readv', 'write', 'writev', 'close', 'fstat', 'ftruncate', 'fsync', 'fdatasync', 'fchmod', 'fchown', 'futimes',
] as const

const refuseDescriptor = (): never => {
  throw new TypeError('Open files are not available in an enclave')
}

const closeDescriptors = (): void => {
  const fs = process.getBuiltinModule('node:fs')
  for (const name of DESCRIPTOR_FUNCTIONS)
    for (const key of [name, `${name}Sync`])
      Object.defineProperty(fs, key, { value: refuseDescriptor, writable: false, configurable: false })
}

/**
 * Node starts a worker’s script by a message, and goes on listening for such messages: code in the host that gets hold of the
 * Worker could send another script. This runs while the first one is delivered, so the port is the current resource.
 */
const closeScriptPort = (): void => {
  const port = executionAsyncResource() as Partial<workerThreads.MessagePort>
  port.removeAllListeners?.('message')
}

/** What the host shares with all of its threads, or can send to each of them. */
const SHARED_BY_THREADS = [
  'workerData',
  'parentPort',
  'getEnvironmentData',
  'setEnvironmentData',
  'BroadcastChannel',
  'postMessageToThread',
  'locks',
] as const

/** Nobody learns why, unless this is a debug image. */
const failInstance = (error: unknown): never => {
  diagnostics()?.fail(error)
  return endInstance(EXIT_CODES.failed)
}

/** Of a process of its own: it wipes before it is ended, and the one signal that would open the debugger opens nothing. */
const heedSignals = (): void => {
  for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) process.on(signal, () => endInstance(EXIT_CODES.wiped))
  process.on('SIGUSR1', () => undefined)
}

process.on('uncaughtException', failInstance)
process.on('unhandledRejection', failInstance)
process.on('exit', wipeAll)
const { isMainThread } = workerThreads
if (isMainThread) heedSignals()
const processStart = isMainThread ? startInProcess() : undefined
if (!isMainThread) closeScriptPort()
closeDescriptors()
if (diagnostics() === undefined) silence()
closeProcess()
hardenIntrinsics([crypto.webcrypto, crypto.webcrypto.subtle, crypto.KeyObject])
Object.freeze(crypto)

/** What the platform passed to this instance; taken once, so that no other module finds the ports. */
export const launched: unknown = processStart ?? workerThreads.workerData
for (const key of SHARED_BY_THREADS) Object.defineProperty(workerThreads, key, { value: null })
Object.freeze(workerThreads)
