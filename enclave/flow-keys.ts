import { parseHeader } from '../protocol/age-header.js'
import { equalPublicBytes, type Bytes } from '../protocol/bytes.js'
import type { EnvelopeContext } from '../protocol/context.js'
import {
  claimedContext,
  openEnvelope,
  openPayloadOf,
  sealBehind,
  sealHeader,
  type OpenedEnvelope,
  type Origin,
  type SealedHeader,
} from '../protocol/crypto/envelope.js'
import {
  agreeKey,
  deriveAgreementKey,
  deriveSigningSeed,
  deriveSubKey,
  ed25519Signer,
  type KeyPairSigner,
} from '../protocol/crypto/keys.js'
import { x25519PublicKey } from '../protocol/crypto/curves.js'
import { subKeyIdentity, subKeyRecipient, type Recipient } from '../protocol/crypto/recipients.js'
import { rootRecipient, type EncryptionHalf } from '../protocol/crypto/root-public.js'
import { Secret } from '../protocol/crypto/secret.js'
import { KeyriseError } from '../protocol/errors.js'
import { kindOf, type EntryName, type FlowId } from '../protocol/names.js'
import type { Random } from '../protocol/ports.js'
import { epochStep } from './epoch-file.js'
import { formatObjectName, ROOT_EPOCH, type ObjectName } from './object-names.js'

/** Who an instance is, for every context that it seals or opens. */
export interface FlowIdentity {
  readonly flow: FlowId
  readonly task: FlowId
  /** The instance's measurement, 32 bytes. */
  readonly image: Bytes
}

/** An image that had the flow before, and the key that tagged what it sealed. */
export interface Predecessor {
  readonly image: Bytes
  readonly key: Secret
}

/** Of an epoch file: what its header says of it. */
type EpochPlace = Pick<ObjectName, 'epoch' | 'incarnation'>

export const ROOT_SIZE_BYTES = 32
/** Authors name steps freely; this keeps theirs apart from the runtime's own. */
const authorStep = (step: string): string => `step/${step}`

export const makeRoot = (random: Random): Secret => Secret.random(ROOT_SIZE_BYTES, random)

/** What the root's envelope must be, whoever opens it. */
export const rootContext = (identity: FlowIdentity, incarnation: number): EnvelopeContext => ({
  ...identity,
  kind: 'root',
  name: 'root',
  epoch: ROOT_EPOCH,
  incarnation,
})

/** Everything that hangs from one business root key. It holds what it is given, and zero-fills it on disposal. */
export class FlowKeys implements Disposable {
  readonly #identity: FlowIdentity
  /** The root's object, whose name ties every epoch to its root. */
  readonly rootObject: ObjectName
  readonly rootName: string
  readonly #root: Secret
  readonly #origin: Origin
  readonly #random: Random
  readonly #signer: KeyPairSigner
  readonly #agreement: Secret
  readonly #predecessors: readonly Predecessor[]
  #prepared: { readonly of: EpochPlace; readonly sealed: SealedHeader } | undefined

  constructor(options: {
    identity: FlowIdentity
    root: Secret
    rootObject: ObjectName
    origin: Origin
    random: Random
    predecessors?: readonly Predecessor[]
  }) {
    this.#identity = options.identity
    this.rootObject = options.rootObject
    this.rootName = formatObjectName(options.rootObject)
    this.#root = options.root
    this.#origin = options.origin
    this.#random = options.random
    this.#predecessors = options.predecessors ?? []
    using seed = deriveSigningSeed(options.root)
    this.#signer = ed25519Signer(seed)
    this.#agreement = deriveAgreementKey(options.root)
  }

  /** Ed25519, 32 bytes. */
  get signingKey(): Bytes {
    return this.#signer.publicKey
  }

  /** X25519, 32 bytes. */
  get agreementKey(): Bytes {
    return x25519PublicKey(this.#agreement)
  }

  sign(message: Uint8Array): Bytes {
    return this.#signer.sign(message)
  }

  agree(peerKey: Uint8Array, step: string): Secret {
    return agreeKey(this.#agreement, peerKey, authorStep(step))
  }

  /** The business root key, sealed to a root key of the KMS. */
  sealRoot(rootKey: EncryptionHalf, incarnation: number): Bytes {
    const context = rootContext(this.#identity, incarnation)
    return this.#root.expose((root) => this.#seal(root, context, rootRecipient(rootKey)))
  }

  /** One entry, sealed straight to a root key of the KMS. */
  sealDirect(name: EntryName, plaintext: Uint8Array, place: ObjectName, rootKey: EncryptionHalf): Bytes {
    return this.#seal(plaintext, this.#directContext(name, place), rootRecipient(rootKey))
  }

  /**
   * Opens what `sealDirect` made under that name, given the file key that the KMS unwrapped.
   * @throws {KeyriseError} as `openEpoch`, but for ERR_IDENTITY_MISMATCH.
   */
  openDirect(name: EntryName, envelope: Uint8Array, place: ObjectName, fileKey: Secret): Bytes {
    const expect = this.#directContext(name, place)
    return openPayloadOf(envelope, fileKey, { expect, origin: this.#origin }).plaintext
  }

  /** Makes the header of an epoch file ahead of its time: it depends on nothing that the file holds. */
  prepareEpoch(of: EpochPlace): void {
    this.#disposePrepared()
    this.#prepared = { of, sealed: this.#epochHeader(of) }
  }

  sealEpoch(plaintext: Uint8Array, of: EpochPlace): Bytes {
    return sealBehind(this.#takePrepared(of) ?? this.#epochHeader(of), plaintext, this.#random)
  }

  /**
   * Opens an epoch file of this flow, image and root: epoch and incarnation are what its context, then verified, says.
   * @throws {KeyriseError} ERR_HEADER_*, ERR_IDENTITY_MISMATCH, ERR_PAYLOAD_*, ERR_ORIGIN_INVALID, ERR_CONTEXT_MISMATCH.
   */
  openEpoch(envelope: Uint8Array): { plaintext: Bytes; context: EnvelopeContext } {
    const claimed = claimedContext(parseHeader(envelope))
    if (claimed === undefined) throw new KeyriseError('ERR_CONTEXT_MISMATCH')
    const step = epochStep(claimed.epoch)
    using subKey = deriveSubKey(this.#root, step)
    const expect = { ...this.#identity, kind: 'epoch', name: this.rootName, epoch: claimed.epoch } as const
    return this.#checked(
      openEnvelope(envelope, { identities: [subKeyIdentity(step, subKey)], expect, origin: this.#origin }),
    )
  }

  sealStep(step: string, plaintext: Uint8Array, incarnation: number): Bytes {
    using subKey = deriveSubKey(this.#root, authorStep(step))
    const context = { ...this.#identity, kind: 'step', name: step, epoch: 0, incarnation } as const
    return this.#seal(plaintext, context, subKeyRecipient(authorStep(step), subKey))
  }

  /** What this image sealed, or one that had the flow before it: nothing restates what lies outside the store. */
  openStep(step: string, envelope: Uint8Array): Bytes {
    using subKey = deriveSubKey(this.#root, authorStep(step))
    const claimed = claimedContext(parseHeader(envelope))?.image
    const sealer = this.#predecessors.find(({ image }) => claimed !== undefined && equalPublicBytes(image, claimed))
    const expect = {
      ...this.#identity,
      image: sealer?.image ?? this.#identity.image,
      kind: 'step',
      name: step,
    } as const
    const origin = sealer === undefined ? this.#origin : { authority: this.#origin.authority, key: sealer.key }
    return openEnvelope(envelope, { identities: [subKeyIdentity(authorStep(step), subKey)], expect, origin }).plaintext
  }

  /**
   * The same root key for the image that takes the flow over: it seals as itself, and opens steps of this one as of any before.
   * @param origin - held by the result.
   */
  heir(identity: FlowIdentity, rootObject: ObjectName, origin: Origin): FlowKeys {
    const predecessors = [{ image: this.#identity.image, key: this.#origin.key }, ...this.#predecessors]
    return new FlowKeys({
      identity,
      root: this.#root.clone(),
      rootObject,
      origin,
      random: this.#random,
      predecessors: predecessors.map(({ image, key }) => ({ image, key: key.clone() })),
    })
  }

  [Symbol.dispose](): void {
    this.#disposePrepared()
    for (const { key } of this.#predecessors) key[Symbol.dispose]()
    this.#root[Symbol.dispose]()
    this.#agreement[Symbol.dispose]()
    this.#signer[Symbol.dispose]()
    this.#origin.key[Symbol.dispose]()
  }

  #directContext(name: EntryName, { epoch, incarnation }: ObjectName): EnvelopeContext {
    return { ...this.#identity, kind: kindOf(name), name, epoch, incarnation }
  }

  #epochHeader({ epoch, incarnation }: EpochPlace): SealedHeader {
    const step = epochStep(epoch)
    using subKey = deriveSubKey(this.#root, step)
    const context = { ...this.#identity, kind: 'epoch', name: this.rootName, epoch, incarnation } as const
    return this.#header(context, subKeyRecipient(step, subKey))
  }

  /** The header that was made for this place, once: each file has a file key of its own. */
  #takePrepared({ epoch, incarnation }: EpochPlace): SealedHeader | undefined {
    const prepared = this.#prepared
    if (prepared?.of.epoch !== epoch || prepared.of.incarnation !== incarnation) return undefined
    this.#prepared = undefined
    return prepared.sealed
  }

  #disposePrepared(): void {
    this.#prepared?.sealed.fileKey[Symbol.dispose]()
    this.#prepared = undefined
  }

  #header(context: EnvelopeContext, recipient: Recipient): SealedHeader {
    return sealHeader({ recipients: [recipient], context, originKeys: [this.#origin], random: this.#random })
  }

  #seal(plaintext: Uint8Array, context: EnvelopeContext, recipient: Recipient): Bytes {
    return sealBehind(this.#header(context, recipient), plaintext, this.#random)
  }

  #checked({ plaintext, context }: OpenedEnvelope): { plaintext: Bytes; context: EnvelopeContext } {
    if (context !== undefined) return { plaintext, context }
    plaintext.fill(0)
    throw new KeyriseError('ERR_CONTEXT_MISMATCH')
  }
}
