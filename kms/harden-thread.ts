import crypto from 'node:crypto'
import { overwriteFreed } from '../protocol/crypto/freed-memory.js'
import { disposeAll } from '../protocol/live-secrets.js'

/** Ways out of a worker, or into the engine, that the KMS’s own code has no use for. */
const WAYS_OUT = [
  'binding',
  '_linkedBinding',
  'dlopen',
  'report',
  'kill',
  '_rawDebug',
  'getBuiltinModule',
  'mainModule',
] as const

/**
 * Closes down the worker thread that calls it, once its modules are loaded. No author’s code runs here, so the intrinsics
 * stay as they are: what is closed is what a fault of our own, or of a library, could leak through.
 * Before the thread ends by itself, also because of an error that nobody caught, every secret is zero-filled.
 */
export const hardenThread = (): void => {
  const fail = (): void => process.exit(1)
  process.on('exit', () => {
    disposeAll()
    overwriteFreed()
  })
  process.on('uncaughtException', fail)
  process.on('unhandledRejection', fail)
  Error.stackTraceLimit = 0
  for (const stream of [process.stdout, process.stderr]) stream.write = () => true
  for (const name of WAYS_OUT)
    Object.defineProperty(process, name, { value: undefined, writable: false, configurable: false })
  Object.freeze(crypto)
}
