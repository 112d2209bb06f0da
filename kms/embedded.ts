import { dirname, resolve } from 'node:path'
import { MessageChannel, Worker, type MessagePort } from 'node:worker_threads'
import { copyBytes, type Bytes } from '../protocol/bytes.js'
import { KeyriseError } from '../protocol/errors.js'
import { KMS_FRAME_SIZE_BYTES_MAX } from '../protocol/limits.js'
import type { KmsLink } from '../protocol/ports.js'
import type { RootSuite } from '../protocol/statements.js'
import { nodeFileSystem } from '../storage/index.js'
import {
  CLOSE,
  type EmbeddedReady,
  type EmbeddedReply,
  type EmbeddedRequest,
  type EmbeddedStart,
} from './embedded-messages.js'
import { permissionFlags } from './permissions.js'
import { placeOf, prepareDirectory, type KmsIdentity } from './place.js'
import type { Policy } from './policy.js'
import { checkPolicy } from './policy-file.js'

export interface StartKmsOptions {
  /** Where the KMS keeps its ledger and, unless `custody` is given, its keyring. Made where it is missing. */
  readonly directory: string
  /** The keyring’s file in a third place. */
  readonly custody?: string
  /** Of the keyring; borrowed: zero-fill it when the promise has settled. */
  readonly passphrase: Uint8Array
  readonly policy: Policy
  /** The passphrase’s scrypt work factor for a keyring that is made now, as a power of two; 18 unless told. */
  readonly workFactor?: number
  /** What the root key of a keyring that is made now is made of; x25519 unless told. RSA’s takes seconds. */
  readonly suite?: RootSuite
}

/** A KMS in a worker of this process, and the way to it. */
export interface EmbeddedKms extends KmsLink, KmsIdentity {
  readonly identity: Bytes
}

/**
 * Starts a KMS in a hardened worker of its own: the smallest start. Where there is neither keyring nor ledger, it makes both.
 * Whoever controls the process can read the worker’s memory: for anything but development use `keyrise kms serve`, elsewhere.
 * @throws {KeyriseError} ERR_PASSPHRASE_WRONG, ERR_KEYRING_*, ERR_LEDGER_*, ERR_CONFIG_INVALID, ERR_STORE_*.
 */
export const startKms = async (options: StartKmsOptions): Promise<EmbeddedKms> => {
  const directory = resolve(options.directory)
  const custody = options.custody === undefined ? undefined : resolve(options.custody)
  const policy = checkPolicy(options.policy)
  if (policy.allowDebug)
    process.emitWarning('Its policy has allowDebug: debug images get keys', { code: 'KEYRISE_ALLOW_DEBUG' })
  const folders = custody === undefined ? [directory] : [directory, dirname(custody)]
  const execArgv = permissionFlags({ folders, worker: true })
  await prepareDirectory(nodeFileSystem, directory)
  const { port1, port2 } = new MessageChannel()
  const passphrase = copyBytes(options.passphrase)
  const start: EmbeddedStart = {
    port: port2,
    place: placeOf({ directory, custody }),
    policy,
    passphrase,
    logN: options.workFactor,
    suite: options.suite,
  }
  const worker = new Worker(new URL('embedded-worker.js', import.meta.url), {
    env: {},
    argv: [],
    execArgv,
    stdin: false,
    stdout: true,
    stderr: true,
    workerData: start,
    transferList: [port2, passphrase.buffer],
  })
  return new EmbeddedLink(port1, worker).started()
}

interface Pending {
  readonly resolve: (reply: Uint8Array) => void
  readonly reject: (error: KeyriseError) => void
}

/** The host’s end: it matches answers to frames, and settles every one when the worker ends. */
class EmbeddedLink {
  readonly #port: MessagePort
  readonly #exited: Promise<void>
  readonly #pending = new Map<number, Pending>()
  #lastId = 0
  #isClosed = false

  constructor(port: MessagePort, worker: Worker) {
    this.#port = port
    this.#exited = new Promise((resolve) => worker.once('exit', () => resolve()))
    worker.on('error', () => undefined)
    void this.#exited.then(() => this.#end())
  }

  /** Resolves when the KMS is ready. @throws {KeyriseError} why it did not start. */
  async started(): Promise<EmbeddedKms> {
    const ready = await new Promise<EmbeddedReady>((resolve) => {
      this.#port.once('message', resolve)
      void this.#exited.then(() => resolve({ type: 'failed', code: 'ERR_KMS_FAILED', detail: 'its worker ended' }))
    })
    if (ready.type === 'failed') {
      await this.#exited
      throw new KeyriseError(ready.code, ready.detail === undefined ? {} : { detail: ready.detail })
    }
    this.#port.on('message', (reply: EmbeddedReply) => this.#settle(reply))
    const close = (): Promise<void> => this.#close()
    return {
      identity: ready.identity,
      keys: ready.keys,
      exchange: (frame) => this.#exchange(frame),
      close,
      [Symbol.asyncDispose]: close,
    }
  }

  #exchange(frame: Uint8Array): Promise<Uint8Array> {
    if (this.#isClosed) return Promise.reject(unreachable())
    if (frame.length > KMS_FRAME_SIZE_BYTES_MAX) return Promise.reject(new KeyriseError('ERR_SIZE_LIMIT'))
    const request: EmbeddedRequest = { id: ++this.#lastId, frame: copyBytes(frame) }
    return new Promise((resolve, reject) => {
      this.#pending.set(request.id, { resolve, reject })
      this.#port.postMessage(request, [request.frame.buffer as ArrayBuffer])
    })
  }

  #settle({ id, frame }: EmbeddedReply): void {
    this.#pending.get(id)?.resolve(frame)
    this.#pending.delete(id)
  }

  async #close(): Promise<void> {
    if (!this.#isClosed) {
      this.#isClosed = true
      this.#port.postMessage(CLOSE)
    }
    await this.#exited
  }

  #end(): void {
    this.#isClosed = true
    this.#port.close()
    for (const { reject } of this.#pending.values()) reject(unreachable())
    this.#pending.clear()
  }
}

const unreachable = (): KeyriseError => new KeyriseError('ERR_KMS_UNREACHABLE', { detail: 'its worker has ended' })
