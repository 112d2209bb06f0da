import { equalPublicBytes, type Bytes } from '../protocol/bytes.js'
import type { FoundStatus, ObjectStatus } from '../protocol/contract.js'
import { envelopeDigest } from '../protocol/crypto/envelope.js'
import type { Secret } from '../protocol/crypto/secret.js'
import { isKeyriseError, type KeyriseError } from '../protocol/errors.js'
import type { EntryName } from '../protocol/names.js'
import type { Store } from '../protocol/ports.js'
import { copiesOf, CopyFailures, restoreParts, type Copies, type Finding, type Parts } from './copies.js'
import { DirectObjects, type DirectHeader, type Place } from './direct-objects.js'
import { isOfItem, lost, mismatch } from './entry-failures.js'
import type { EpochState, StoredObject } from './epoch-file.js'
import { FileKeys } from './file-keys.js'
import type { FlowKeys } from './flow-keys.js'
import { GatheredPair, type Candidate } from './gathered-pair.js'
import type { KmsClient } from './kms-client.js'
import { formatObjectName, storeName } from './object-names.js'
import { partsOfPair } from './stored-objects.js'

export interface ObjectOpenerOptions extends Place {
  readonly keys: FlowKeys
  readonly kms: KmsClient
  /** True for an object whose key nobody will ask for soon. */
  readonly isOpen: (object: StoredObject) => boolean
  readonly found: Finding
}

/** An object to open, and why. */
export interface Wanted {
  readonly object: StoredObject
  /** The one that it holds, where it is sealed straight to the KMS. */
  readonly entry: EntryName | undefined
  /** The keys of what else it lists may be fetched along. */
  readonly state: EpochState
}

/** An object as one copy, or halves of several, gave it. */
interface Whole {
  readonly plaintext: Bytes
  readonly parts: Parts
}

/** Reads one object from one copy after the other; undefined where it is missing there. */
type Attempt = (copy: Store) => Promise<Whole | undefined>

/**
 * Opens objects that the flow's state lists, verified against the digest that it lists, out of whichever copy has them whole,
 * and writes them again to the copies that have not.
 */
export class ObjectOpener implements Disposable {
  readonly #options: ObjectOpenerOptions
  readonly #fileKeys: FileKeys
  readonly #directs = new Map<Store, DirectObjects>()
  #copies: Promise<Copies> | undefined

  constructor(options: ObjectOpenerOptions) {
    this.#options = options
    const objects = this.#directsOf(options.store)
    const forgetList = (): void => this.#directs.forEach((directs) => directs.forgetList())
    this.#fileKeys = new FileKeys({
      objects: { getHeaders: (object) => objects.getHeaders(object), forgetList },
      kms: options.kms,
      isOpen: options.isOpen,
    })
  }

  /**
   * The plaintext, which the caller zero-fills. Copies that were read before a whole one, and that lack it, are written again.
   * @throws {KeyriseError} ERR_STATE_LOST: no copy has it; ERR_DIGEST_MISMATCH: none has the right one; ERR_ENVELOPE_INVALID and
   * what stands for it; ERR_STORE_*; ERR_KMS_*.
   */
  async open(wanted: Wanted): Promise<Bytes> {
    const { whole, statuses, why } = await this.#read(wanted)
    if (whole === undefined) throw why(lost(wanted.object))
    const copies = await this.#allCopies()
    const lacking = copies.filter((_, index) => statuses[index] === 'missing' || statuses[index] === 'damaged')
    const restored = await Promise.all(lacking.map((copy) => restoreParts(copy, whole.parts)))
    if (restored.includes('repaired')) this.#options.found(formatObjectName(wanted.object.name), 'repaired')
    return whole.plaintext
  }

  /** What each copy is, once those that lacked what another has were written again. @throws {KeyriseError} ERR_KMS_*, … */
  async inspect(wanted: Wanted): Promise<readonly ObjectStatus[]> {
    const { whole, statuses } = await this.#read(wanted)
    if (whole === undefined) return statuses
    whole.plaintext.fill(0)
    const copies = await this.#allCopies()
    // What has just been read out of the only copy need not be read again.
    return copies.length === 1 ? ['intact'] : Promise.all(copies.map((copy) => restoreParts(copy, whole.parts)))
  }

  forget(object: StoredObject): void {
    this.#fileKeys.forget(object)
  }

  [Symbol.dispose](): void {
    this.#fileKeys[Symbol.dispose]()
  }

  /** The first whole one, and what the copies before it, or all, were. */
  async #read(wanted: Wanted): Promise<{
    readonly whole?: Whole
    readonly statuses: readonly FoundStatus[]
    readonly why: (missing: KeyriseError) => KeyriseError
  }> {
    const failures = new CopyFailures()
    const why = (missing: KeyriseError): KeyriseError => failures.why(missing)
    const attempt = this.#attempt(wanted)
    for (const copy of await this.#allCopies()) {
      try {
        const whole = await attempt(copy)
        if (whole !== undefined) return { whole, statuses: failures.statuses, why }
        failures.add(lost(wanted.object))
      } catch (error) {
        failures.add(error)
      }
    }
    return { statuses: failures.statuses, why }
  }

  #attempt(wanted: Wanted): Attempt {
    const { object } = wanted
    if (object.name.kind !== 'direct') return (copy) => this.#openEpoch(copy, object)
    const gathered = new GatheredPair<DirectHeader>()
    return (copy) => this.#openDirect(copy, gathered, wanted)
  }

  async #openEpoch(copy: Store, object: StoredObject): Promise<Whole | undefined> {
    const name = storeName(this.#options.flow, object.name)
    const envelope = await copy.get(name)
    if (envelope === undefined) return undefined
    if (!hasDigest(envelope, object)) throw mismatch(object)
    return { plaintext: this.#options.keys.openEpoch(envelope).plaintext, parts: [[name, envelope]] }
  }

  /** The KMS unwraps the header, no more: what the object is, and that it is the one, is verified here. */
  async #openDirect(copy: Store, gathered: GatheredPair<DirectHeader>, wanted: Wanted): Promise<Whole | undefined> {
    const { object } = wanted
    const directs = this.#directsOf(copy)
    const [headers, payload] = await Promise.allSettled([directs.getHeaders(object), directs.getPayload(object)])
    const candidates = gathered.add(valueOf(headers) ?? [], valueOf(payload))
    const listed = candidates.filter(({ envelope }) => hasDigest(envelope, object))
    // Either half may be missing here, and its failure the reason; together with another copy's, it may still do.
    if (candidates.length === 0)
      for (const half of [headers, payload]) if (half.status === 'rejected') throw half.reason
    if (listed.length === 0) throw mismatch(object)
    const { plaintext, candidate } = await this.#openListed(listed, wanted)
    return { plaintext, parts: partsOfPair(this.#options.flow, object.name, candidate) }
  }

  async #openListed(listed: readonly Candidate<DirectHeader>[], { object, entry, state }: Wanted): Promise<OpenedPair> {
    let refusal: unknown
    // Then each alone: a key at hand may be of a header that the store has replaced since, or of a generation that is damaged.
    for (const candidates of [listed, ...listed.map((candidate) => [candidate])]) {
      try {
        const wrapping = candidates.map(({ header }) => header)
        using fileKey = await this.#fileKeys.get(object, wrapping, state)
        return this.#openWith(fileKey, object, entry, candidates)
      } catch (error) {
        if (!isOfItem(error)) throw error
        refusal ??= error
        this.#fileKeys.forget(object)
      }
    }
    throw refusal
  }

  #openWith(
    fileKey: Secret,
    object: StoredObject,
    entry: EntryName | undefined,
    candidates: readonly Candidate<DirectHeader>[],
  ): OpenedPair {
    let refusal: unknown
    for (const candidate of candidates) {
      try {
        const { envelope } = candidate
        return {
          plaintext: this.#options.keys.openDirect(entry as EntryName, envelope, object.name, fileKey),
          candidate,
        }
      } catch (error) {
        refusal ??= error
      }
    }
    throw refusal
  }

  #allCopies(): Promise<Copies> {
    const asked = (this.#copies ??= copiesOf(this.#options.store))
    asked.catch(() => (this.#copies = undefined))
    return asked
  }

  #directsOf(copy: Store): DirectObjects {
    const directs = this.#directs.get(copy) ?? new DirectObjects({ store: copy, flow: this.#options.flow })
    this.#directs.set(copy, directs)
    return directs
  }
}

interface OpenedPair {
  readonly plaintext: Bytes
  readonly candidate: Candidate<DirectHeader>
}

/** What a half gave; undefined where it is missing or unreadable. */
const valueOf = <T>(half: PromiseSettledResult<T>): T | undefined =>
  half.status === 'fulfilled' ? half.value : undefined

/** True when `claimed` is an envelope with the digest that `object` has; false for damage. */
const hasDigest = (claimed: Uint8Array, { digest }: StoredObject): boolean => {
  try {
    return equalPublicBytes(envelopeDigest(claimed), digest)
  } catch (error) {
    if (isKeyriseError(error)) return false
    throw error
  }
}
