import { UnsealPool } from '../../kms/pool.js'
import { parseHeader } from '../../protocol/age-header.js'
import type { Bytes } from '../../protocol/bytes.js'
import { segmentAt, segmentCount } from '../../protocol/crypto/delivery.js'
import { unwrapHeader } from '../../protocol/crypto/envelope.js'
import { derivePayloadKey, PAYLOAD_NONCE_SIZE, SEALED_SEGMENT_SIZE } from '../../protocol/crypto/payload.js'
import { expectEqual, randomBytes } from './files.js'
import { identities, sealOurs, unsealKeys } from './keyrise.js'

/** A payload for a KMS’s pool, where a KMS would have it: sealed in shared memory, and room for its plaintext beside it. */
export class SharedPayload {
  readonly #plaintext: Bytes
  readonly #envelope: Uint8Array<SharedArrayBuffer>
  readonly #into: Uint8Array<SharedArrayBuffer>

  constructor(plaintext: Bytes) {
    const envelope = sealOurs(plaintext)
    this.#plaintext = plaintext
    this.#envelope = new Uint8Array(new SharedArrayBuffer(envelope.length))
    this.#envelope.set(envelope)
    this.#into = new Uint8Array(new SharedArrayBuffer(plaintext.length))
  }

  /** The whole way: header, file key, MAC, then every chunk. The memory that it writes to is kept, as the KMS’s slots are. */
  async open(pool: UnsealPool): Promise<void> {
    const header = parseHeader(this.#envelope)
    using fileKey = unwrapHeader(header, identities)
    await pool.openPayload({ fileKey, payload: this.#envelope.subarray(header.sizeBytes), into: this.#into })
  }

  /** Looks whether `open` fills the memory. */
  async verify(pool: UnsealPool): Promise<void> {
    this.#into.fill(0)
    await this.open(pool)
    expectEqual('keyrise', this.#into, this.#plaintext)
  }

  /** All segments, in as many lanes as keep the pool busy: opened, hashed, and sealed again as for a session. */
  async reseal(pool: UnsealPool, laneCount: number): Promise<void> {
    const header = parseHeader(this.#envelope)
    using fileKey = unwrapHeader(header, identities)
    const payload = this.#envelope.subarray(header.sizeBytes)
    const payloadKey = derivePayloadKey(fileKey, payload.slice(0, PAYLOAD_NONCE_SIZE))
    const deliveryKey = randomBytes(32)
    const chunks = payload.subarray(PAYLOAD_NONCE_SIZE)
    const count = segmentCount(this.#plaintext.length)
    let next = 0
    const lane = async (): Promise<void> => {
      for (let index = next++; index < count; index = next++)
        await pool.reseal({
          segment: segmentAt(this.#plaintext.length, index),
          sealed: chunks.subarray(index * SEALED_SEGMENT_SIZE, (index + 1) * SEALED_SEGMENT_SIZE),
          known: undefined,
          writeKeys: (into) => {
            into.set(payloadKey)
            into.set(deliveryKey, payloadKey.length)
          },
        })
    }
    await Promise.all(Array.from({ length: laneCount }, lane))
  }
}

export const withPool = async <T>(threadCount: number, use: (pool: UnsealPool) => Promise<T>): Promise<T> => {
  const pool = await UnsealPool.start(unsealKeys(), { threadCount })
  try {
    return await use(pool)
  } finally {
    await pool.close()
  }
}
