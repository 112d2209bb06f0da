import { createPublicKey, sign, type KeyObject } from 'node:crypto'
import { MessageChannel, type MessagePort } from 'node:worker_threads'
import { copyBytes, equalPublicBytes, type Bytes } from '../protocol/bytes.js'
import { claimedId, encodeRefusal, encodeReply, parseCall } from '../protocol/calls.js'
import { FieldReader } from '../protocol/check.js'
import { KeyriseError } from '../protocol/errors.js'
import { prepareEvidence } from '../protocol/evidence.js'
import { portOf } from '../protocol/message-port.js'
import { sha256 } from '../protocol/sha256.js'
import { admitValue } from '../protocol/values.js'
import { parseImage, type Image } from './image.js'
import { verifySignature } from './image-signature.js'
import { openPlatformKey } from './key-file.js'
import type { Instance, LaunchOptions, Platform } from './platform.js'
import { pin, startWorker } from './worker.js'

const WIPE_TIMEOUT_MS = 1_000
const ATTEST_SIZE_BYTES_MAX = 1024

/**
 * A platform in software: each instance is a worker thread that runs the measured string. It enforces the interface and
 * keeps no secret from whoever controls the process; evidence by it is worth as much as its key file.
 */
export class SimulatedPlatform implements Platform {
  readonly publicKey: Bytes
  readonly #key: KeyObject

  private constructor(key: KeyObject) {
    this.#key = key
    // RFC 8410 §4: the last 32 bytes of an Ed25519 SubjectPublicKeyInfo are the key.
    this.publicKey = copyBytes(createPublicKey(key).export({ format: 'der', type: 'spki' }).subarray(-32))
  }

  /**
   * @param directory - holds the platform's key file; made where missing.
   * @throws {KeyriseError} ERR_STORE_UNWRITABLE, ERR_STORE_IO, ERR_CONFIG_INVALID.
   */
  static async open(directory: string): Promise<SimulatedPlatform> {
    return new SimulatedPlatform(await openPlatformKey(directory))
  }

  /**
   * @throws {KeyriseError} ERR_IMAGE_INVALID when the image is not the string that its measurement says; ERR_IMAGE_SIGNATURE
   * when it has a signature that is not of it.
   */
  launch(image: Image, options: LaunchOptions): Instance {
    const measured = measure(image)
    const configuration = copyBytes(options.configuration)
    const [ecalls, ocalls, platform] = [new MessageChannel(), new MessageChannel(), new MessageChannel()]
    const configDigest = sha256(configuration)
    this.#attest(platform.port1, measured, configDigest)
    const worker = startWorker(
      measured.source,
      {
        ecalls: ecalls.port2,
        ocalls: ocalls.port2,
        platform: platform.port2,
        configuration,
        measurement: measured.measurement,
        flow: options.flow,
        task: options.task,
      },
      [ecalls.port2, ocalls.port2, platform.port2],
    )
    const ports = [ecalls.port1, ocalls.port1, platform.port1]
    void worker.exited.then(() => ports.forEach((port) => port.close()))
    return {
      ecalls: portOf(ecalls.port1),
      ocalls: portOf(ocalls.port1),
      exited: worker.exited,
      terminate: async () => {
        platform.port1.close()
        await withinMs(WIPE_TIMEOUT_MS, worker.exited)
        await worker.kill()
      },
      kill: worker.kill,
    }
  }

  /** Signs evidence for the instance at the other end of `port`, and for no other: measurement and configuration are not its to say. */
  #attest(port: MessagePort, measured: Image, configDigest: Bytes): void {
    pin(port)
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
    port.on('message', (claimed: unknown) => {
      const { message, transfer } = answer(claimed)
      port.postMessage(message, transfer)
    })
    // Not among the process's active handles, where any code could pick it up; the host's own ports keep the process alive.
    port.unref()
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

const withinMs = async (timeoutMs: number, event: Promise<unknown>): Promise<void> => {
  let timer: NodeJS.Timeout | undefined
  await Promise.race([event, new Promise((resolve) => (timer = setTimeout(resolve, timeoutMs)))])
  clearTimeout(timer)
}
