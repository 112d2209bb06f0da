import { createPublicKey, sign, type KeyObject } from 'node:crypto'
import { resolve } from 'node:path'
import { MessageChannel, receiveMessageOnPort, type MessagePort } from 'node:worker_threads'
import { copyBytes, equalPublicBytes, type Bytes } from '../protocol/bytes.js'
import { claimedId, encodeRefusal, encodeReply, parseCall } from '../protocol/calls.js'
import { FieldReader } from '../protocol/check.js'
import { decodeConfiguration } from '../protocol/configuration.js'
import { KeyriseError } from '../protocol/errors.js'
import { prepareEvidence } from '../protocol/evidence.js'
import { portOf } from '../protocol/message-port.js'
import type { Port } from '../protocol/ports.js'
import { createRing } from '../protocol/ring.js'
import { RING_SIZE_BYTES, RingPort } from '../protocol/ring-port.js'
import { sha256 } from '../protocol/sha256.js'
import { admitValue } from '../protocol/values.js'
import { parseImage, type Image } from './image.js'
import { verifySignature } from './image-signature.js'
import { openPlatformKey } from './key-file.js'
import type { Instance, LaunchOptions, Platform } from './platform.js'
import { ProcessRecipe, type ProcessMeasure } from './process-recipe.js'
import { startProcess, type ProcessStart } from './process.js'
import { pin, startWorker } from './worker.js'

/** Milliseconds, but on a machine with more to do than it can: who is ended before it has wiped leaves its keys in memory. */
const WIPE_TIMEOUT_MS = 3_000
const ATTEST_SIZE_BYTES_MAX = 1024

export interface SimulatedPlatformOptions {
  /** What every enclave in a process of its own must be surrounded with: where one is missing, it is not launched. */
  readonly processMeasures?: readonly ProcessMeasure[]
}

/**
 * A platform in software: each instance is a worker thread, or a process, that runs the measured string. It enforces the
 * interface and keeps no secret from whoever controls the host's process; evidence by it is worth as much as its key file.
 */
export class SimulatedPlatform implements Platform {
  readonly publicKey: Bytes
  readonly #key: KeyObject
  readonly #directory: string
  readonly #required: readonly ProcessMeasure[]
  #recipe: ProcessRecipe | undefined

  private constructor(key: KeyObject, directory: string, options: SimulatedPlatformOptions) {
    this.#key = key
    this.#directory = resolve(directory)
    this.#required = options.processMeasures ?? []
    // RFC 8410 §4: the last 32 bytes of an Ed25519 SubjectPublicKeyInfo are the key.
    this.publicKey = copyBytes(createPublicKey(key).export({ format: 'der', type: 'spki' }).subarray(-32))
  }

  /**
   * @param directory - holds the platform's key file, and a program of its own for processes; made where missing.
   * @throws {KeyriseError} ERR_STORE_UNWRITABLE, ERR_STORE_IO, ERR_CONFIG_INVALID.
   */
  static async open(directory: string, options: SimulatedPlatformOptions = {}): Promise<SimulatedPlatform> {
    return new SimulatedPlatform(await openPlatformKey(directory), directory, options)
  }

  /**
   * What an enclave in a process of its own is surrounded with on this machine. It is found out at the first asking.
   * @throws {KeyriseError} ERR_ISOLATION_UNAVAILABLE where it is not all that was required.
   */
  get processMeasures(): readonly ProcessMeasure[] {
    return this.#processRecipe().measures
  }

  /**
   * @throws {KeyriseError} ERR_IMAGE_INVALID when the image is not the string that its measurement says; ERR_IMAGE_SIGNATURE
   * when it has a signature that is not of it; ERR_CONFIG_INVALID when it is to run in another isolation than its
   * configuration says; ERR_ISOLATION_UNAVAILABLE.
   */
  launch(image: Image, options: LaunchOptions): Instance {
    const measured = measure(image)
    const configuration = copyBytes(options.configuration)
    const isolation = options.isolation ?? 'worker'
    // Evidence carries the configuration’s digest, so what that says is what is done.
    if (decodeConfiguration(configuration).isolation !== isolation)
      throw new KeyriseError('ERR_CONFIG_INVALID', { detail: 'isolation' })
    const start = { configuration, measurement: measured.measurement, flow: options.flow, task: options.task }
    return isolation === 'process' ? this.#inProcess(measured, start) : this.#inWorker(measured, start)
  }

  #inProcess(measured: Image, start: ProcessStart): Instance {
    const { ecalls, ocalls, platform, exited, kill } = startProcess(this.#processRecipe(), measured.source, start)
    this.#attest(platform, measured, sha256(start.configuration))
    return { ecalls, ocalls, exited, terminate: terminator(platform, exited, kill), kill }
  }

  #processRecipe(): ProcessRecipe {
    return (this.#recipe ??= new ProcessRecipe(this.#directory, { required: this.#required }))
  }

  #inWorker(measured: Image, start: ProcessStart): Instance {
    const [ecalls, ocalls, platform] = [new MessageChannel(), new MessageChannel(), new MessageChannel()]
    const life = new MessageChannel()
    const rings = { into: createRing(RING_SIZE_BYTES), outOf: createRing(RING_SIZE_BYTES) }
    pin(platform.port1)
    const platformPort = portOf(platform.port1)
    this.#attest(platformPort, measured, sha256(start.configuration))
    // Not among the process's active handles, where any code could pick it up; the host's own ports keep the process alive.
    platform.port1.unref()
    const worker = startWorker(
      measured.source,
      { ecalls: ecalls.port2, ocalls: ocalls.port2, platform: platform.port2, life: life.port2, rings, ...start },
      [ecalls.port2, ocalls.port2, platform.port2, life.port2],
    )
    const ports = [ecalls.port1, ocalls.port1, platform.port1, life.port1]
    void worker.exited.then(() => ports.forEach((port) => port.close()))
    return {
      ecalls: hostEnd(ecalls.port1, life.port1, rings),
      ocalls: portOf(ocalls.port1),
      exited: worker.exited,
      terminate: terminator(platformPort, worker.exited, worker.kill),
      kill: worker.kill,
    }
  }

  /** Signs evidence for the instance at the other end of `port`, and for no other: measurement and configuration are not its to say. */
  #attest(port: Port, measured: Image, configDigest: Bytes): void {
    const answer = (claimed: unknown) => {
      try {
        const { id, name, claimedArgument } = parseCall(claimed)
        if (name !== 'attest') throw new KeyriseError('ERR_MESSAGE_INVALID')
        const fields = new FieldReader(
          admitValue(claimedArgument, { sizeBytesMax: ATTEST_SIZE_BYTES_MAX }),
          ['nonce', 'confirmationKey'],
          'ERR_ARGUMENT_INVALID',
        )
        const { name: imageName, svn } = measured.manifest
        const evidence = prepareEvidence({
          nonce: fields.bytes('nonce', 32),
          confirmationKey: fields.bytes('confirmationKey', 32),
          measurement: measured.measurement,
          name: imageName,
          svn,
          configDigest,
          debug: measured.manifest.debug,
          signed: measured.signature === undefined ? null : measured.signature,
        })
        return encodeReply(id, evidence.join(sign(null, evidence.toSign, this.#key)))
      } catch (error) {
        return encodeRefusal(claimedId(claimed), error)
      }
    }
    port.onMessage((claimed) => {
      const { message, transfer } = answer(claimed)
      port.post(message, transfer)
    })
  }
}

/** Read once, measured and verified here, and run: nothing else can take the place of the string or the signature in between. */
const measure = ({ source, measurement, signature }: Image): Image => {
  const measured = parseImage(source)
  if (!equalPublicBytes(measured.measurement, measurement))
    throw new KeyriseError('ERR_IMAGE_INVALID', { detail: 'measurement' })
  if (signature === undefined) return measured
  return { ...measured, signature: verifySignature(copyBytes(signature.bytes), measured.measurement) }
}

/** The platform's port closes, which the enclave takes for the time to wipe; then it is ended, whether it did or not. */
const terminator = (platform: Port, exited: Promise<unknown>, kill: () => Promise<void>) => async (): Promise<void> => {
  platform.close()
  await withinMs(WIPE_TIMEOUT_MS, exited)
  await kill()
}
/** Shared memory of one instance: calls go into the enclave through one ring, answers out of it through the other. */
interface Rings {
  readonly into: SharedArrayBuffer
  readonly outOf: SharedArrayBuffer
}

const hostEnd = (port: MessagePort, life: MessagePort, rings: Rings): RingPort =>
  new RingPort({
    beside: port,
    incoming: rings.outOf,
    outgoing: rings.into,
    defer: setImmediate,
    besideNow: {
      receive: () => receiveMessageOnPort(port),
      // A thread that blocks hears of no event. Nobody reads these messages; but posting one says true, which is not in
      // Node's documentation, only as long as the port at the other end exists.
      isOpen: () => (life.postMessage(null) as unknown) === true,
    },
    heedsBackpressure: false,
  })

const withinMs = async (timeoutMs: number, event: Promise<unknown>): Promise<void> => {
  let timer: NodeJS.Timeout | undefined
  await Promise.race([event, new Promise((resolve) => (timer = setTimeout(resolve, timeoutMs)))])
  clearTimeout(timer)
}
