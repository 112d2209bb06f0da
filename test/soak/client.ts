import { randomInt } from 'node:crypto'
import { asciiBytes, copyBytes, equalPublicBytes, type Bytes } from '../../protocol/bytes.js'
import { parseHeader } from '../../protocol/age-header.js'
import type { KmsChannel } from '../../protocol/ports.js'
import type { Head, SessionReplies } from '../../protocol/session.js'
import { openPayloadOf } from '../../protocol/crypto/envelope.js'
import { nodeRandom } from '../../protocol/crypto/primitives.js'
import { openReceipt } from '../../protocol/crypto/receipts.js'
import { Secret } from '../../protocol/crypto/secret.js'
import { AttestedClient, newestKey, sealToKms, type ClientOptions } from '../kms/attested-client.js'

/** What a client asks of a KMS, as the figures name it. */
export const STEPS = ['handshake', 'open', 'claim', 'commit', 'unwrap'] as const
export type Step = (typeof STEPS)[number]

/** Envelopes of one flow, made once and asked for again and again: to a KMS each time is the first. */
const BANK_COUNT = 128
const FILE_KEY_SIZE_BYTES = 16
/** Headers of one call; the next call has four times as many. */
const FIRST_CALL_COUNT = 1
const CALL_COUNT_MAX = 256

interface Sealed {
  readonly envelope: Bytes
  readonly header: Bytes
  readonly plaintext: Bytes
}

export interface SoakClientOptions extends Omit<ClientOptions, 'claims'> {
  readonly flow: string
  /** Told how long each step took, in milliseconds, and of an unwrap of how many headers. */
  readonly took: (step: Step, ms: number, count: number) => void
}

/** One enclave that recovers again and again: each session attests, opens and claims the flow, commits, and unwraps. */
export class SoakClient {
  readonly #options: SoakClientOptions
  #bank: readonly Sealed[] | undefined

  constructor(options: SoakClientOptions) {
    this.#options = options
  }

  /** @param unwrapCount - headers to unwrap, in calls of 1, 4, 16, 64 and 256. @throws what is wrong with an answer. */
  async session(unwrapCount: number): Promise<void> {
    const { flow } = this.#options
    const client = await this.#timed('handshake', () => AttestedClient.connect(this.#options))
    try {
      const opened = await this.#timed('open', () => client.open(flow, 'soak'))
      this.#bank ??= makeBank(client, opened, { flow, image: this.#options.image })
      const { head, incarnation } = opened
      const claim = { op: 'claim', head, incarnation, adopt: null, stale: false } as const
      const { reply } = await this.#timed('claim', () => client.call(claim))
      const next: Head = { epoch: (head?.epoch ?? 0) + 1, digest: nodeRandom.fill(new Uint8Array(32)) }
      const commit = { op: 'commit', incarnation: reply.incarnation, parent: head, head: next } as const
      await this.#timed('commit', () => client.call(commit))
      for (const count of callSizes(unwrapCount)) await this.#unwrap(client, this.#bank, count)
    } finally {
      client.origin?.key[Symbol.dispose]()
      client.session.close()
    }
  }

  async #unwrap(client: AttestedClient, bank: readonly Sealed[], count: number): Promise<void> {
    const first = randomInt(bank.length)
    const asked = Array.from({ length: count }, (_, index) => bank[(first + index) % bank.length] as Sealed)
    const headers = asked.map(({ header }) => header)
    const { reply, secrets } = await this.#timed('unwrap', () => client.call({ op: 'unwrap', headers }), count)
    try {
      this.#check(reply, secrets, asked)
    } finally {
      secrets.fill(0)
    }
  }

  /** Every status, the receipt, and of one item that its file key opens it. */
  #check({ items, receipt }: SessionReplies['unwrap'], secrets: Bytes, asked: readonly Sealed[]): void {
    const refused = items.find(({ error }) => error !== null)
    if (refused !== undefined) throw new Error(`a header was refused: ${String(refused.error)}`)
    if (items.length !== asked.length || secrets.length !== asked.length * FILE_KEY_SIZE_BYTES)
      throw new Error('an answer is of another size')
    if (openReceipt(this.#options.kmsIdentity, receipt)?.openedCount !== asked.length)
      throw new Error('a receipt is of something else')
    const index = randomInt(asked.length)
    const { envelope, plaintext } = asked[index] as Sealed
    using fileKey = Secret.take(secrets.slice(index * FILE_KEY_SIZE_BYTES, (index + 1) * FILE_KEY_SIZE_BYTES))
    if (!equalPublicBytes(openPayloadOf(envelope, fileKey).plaintext, plaintext))
      throw new Error('a file key opened something else')
  }

  async #timed<T>(step: Step, work: () => Promise<T>, count = 1): Promise<T> {
    const startMs = performance.now()
    const result = await work()
    this.#options.took(step, performance.now() - startMs, count)
    return result
  }
}

const callSizes = (count: number): number[] => {
  const sizes: number[] = []
  for (let left = count, size = FIRST_CALL_COUNT; left > 0; left -= size, size = Math.min(CALL_COUNT_MAX, size * 4))
    sizes.push(Math.min(left, size))
  return sizes
}

const makeBank = (
  { origin }: AttestedClient,
  opened: SessionReplies['open'],
  { flow, image }: { readonly flow: string; readonly image: Bytes },
): Sealed[] => {
  const { encryptionKey } = newestKey(opened)
  return Array.from({ length: BANK_COUNT }, (_, index) => {
    const plaintext = asciiBytes(`${flow} ${String(index)}`)
    const envelope = sealToKms(plaintext, { encryptionKey, origin, flow, image })
    return { envelope, plaintext, header: envelope.slice(0, parseHeader(envelope).sizeBytes) }
  })
}

/** A way to the KMS that remembers the last frame that was answered: somebody on the way might send it again. */
export class Overheard implements KmsChannel {
  readonly #kms: KmsChannel
  last: Bytes | undefined

  constructor(kms: KmsChannel) {
    this.#kms = kms
  }

  async exchange(frame: Uint8Array): Promise<Uint8Array> {
    const answered = await this.#kms.exchange(frame)
    this.last = copyBytes(frame)
    return answered
  }
}
