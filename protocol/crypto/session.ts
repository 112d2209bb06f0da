import { CipherSuite, KDF_HKDF_SHA256, KEM_DHKEM_X25519_HKDF_SHA256 } from 'hpke'
import { allocate, asciiBytes, copyBytes, type Bytes } from '../bytes.js'
import { KeyriseError, type ErrorCode } from '../errors.js'
import { handshakeTranscript, SESSION_INFO, type KmsReplies, type KmsRequest } from '../kms.js'
import type { Random } from '../ports.js'
import { verifyEd25519 } from './keys.js'
import { labelled } from './labels.js'
import { sha256 } from './primitives.js'
import { sessionAead } from './session-aead.js'

/**
 * The session between an enclave and a KMS: two HPKE contexts (RFC 9180, base mode), one for each direction, from ephemeral
 * keys of both sides. Base mode authenticates nobody, so each side’s half is signed for: the KMS identity signs the transcript,
 * and the platform signs evidence that carries the enclave’s key and, through its nonce, the enclave’s encapsulation.
 *
 * hpke keeps a context’s AES key in buffers that only it can reach: they stay in memory until the collector takes them.
 */
const suite = new CipherSuite(KEM_DHKEM_X25519_HKDF_SHA256, KDF_HKDF_SHA256, sessionAead)
type SealContext = Awaited<ReturnType<typeof suite.SetupSender>>['ctx']
type OpenContext = Awaited<ReturnType<typeof suite.SetupRecipient>>
type EphemeralKeyPair = Awaited<ReturnType<typeof suite.GenerateKeyPair>>

const ID_SIZE = 16
const NONCE_SIZE = 32
const INFO = { toKms: asciiBytes(SESSION_INFO.toKms), toEnclave: asciiBytes(SESSION_INFO.toEnclave) }

/** What the KMS reads of a handshake request. */
export type HandshakeRequest = Pick<
  Extract<KmsRequest, { op: 'handshake' }>,
  'enclaveKey' | 'encapsulated' | 'evidence'
>

/** One end of a session. Frames open once, in the order in which they were sealed. */
export interface Session {
  /** 16 bytes. */
  readonly id: Bytes
  /** SHA-256 of the transcript that the KMS signed: what binds a proof to this session. */
  readonly transcriptDigest: Bytes
  /** @param plaintext - borrowed until the promise settles. @throws {KeyriseError} ERR_SESSION_INVALID: closed. */
  seal(plaintext: Uint8Array): Promise<Bytes>
  /**
   * The plaintext, which the caller wipes when it is secret. A frame that does not open changes nothing: the one expected still
   * opens.
   * @throws {KeyriseError} ERR_SESSION_INVALID: forged, replayed, out of order, or the session is closed.
   */
  open(sealed: Uint8Array): Promise<Bytes>
  /** Nothing is sealed or opened afterwards. */
  close(): void
}

/** Runs `work`, whose failures are all of one kind to the caller. */
const orRefuse = async <T>(code: ErrorCode, work: () => Promise<T>): Promise<T> => {
  try {
    return await work()
  } catch (cause) {
    throw new KeyriseError(code, { cause })
  }
}

class HpkeSession implements Session {
  readonly id: Bytes
  readonly transcriptDigest: Bytes
  #contexts: { readonly seal: SealContext; readonly open: OpenContext } | undefined

  constructor(id: Bytes, transcript: Bytes, contexts: { seal: SealContext; open: OpenContext }) {
    this.id = id
    this.transcriptDigest = sha256(transcript)
    this.#contexts = contexts
  }

  #live() {
    if (this.#contexts === undefined) throw new KeyriseError('ERR_SESSION_INVALID', { detail: 'closed' })
    return this.#contexts
  }

  async seal(plaintext: Uint8Array): Promise<Bytes> {
    const { seal } = this.#live()
    return copyBytes(await orRefuse('ERR_SESSION_INVALID', () => seal.Seal(plaintext)))
  }

  async open(sealed: Uint8Array): Promise<Bytes> {
    const { open } = this.#live()
    const opened = await orRefuse('ERR_SESSION_INVALID', () => open.Open(sealed))
    try {
      return copyBytes(opened)
    } finally {
      opened.fill(0)
    }
  }

  close(): void {
    this.#contexts = undefined
  }
}

/**
 * The nonce that evidence carries: of the KMS’s own nonce, its ephemeral key, and the enclave’s encapsulation to that key. Were
 * the last left out, a host could put its own encapsulation in its place and send requests in the enclave’s name.
 */
const bindNonce = ({ nonce, kmsKey }: KmsReplies['challenge'], encapsulated: Uint8Array): Bytes =>
  sha256(...labelled('evidence-nonce', nonce, kmsKey, encapsulated))

const transcriptOf = (
  { nonce, kmsKey }: KmsReplies['challenge'],
  request: HandshakeRequest,
  reply: Pick<KmsReplies['handshake'], 'session' | 'encapsulated'>,
): Bytes =>
  handshakeTranscript({
    nonce,
    kmsKey,
    enclaveKey: request.enclaveKey,
    encapsulatedToKms: request.encapsulated,
    encapsulatedToEnclave: reply.encapsulated,
    evidence: request.evidence,
    session: reply.session,
  })

/** The KMS’s side of one handshake. */
export class SessionOffer {
  /** What answers `challenge`. */
  readonly challenge: KmsReplies['challenge']
  #keys: EphemeralKeyPair | undefined

  private constructor(challenge: KmsReplies['challenge'], keys: EphemeralKeyPair) {
    this.challenge = challenge
    this.#keys = keys
  }

  /** @param random - for the id and the nonce; the ephemeral key is WebCrypto’s and cannot be exported. */
  static async create(random: Random): Promise<SessionOffer> {
    const keys = await suite.GenerateKeyPair(false)
    const kmsKey = copyBytes(await suite.SerializePublicKey(keys.publicKey))
    return new SessionOffer(
      { handshake: random.fill(allocate(ID_SIZE)), nonce: random.fill(allocate(NONCE_SIZE)), kmsKey },
      keys,
    )
  }

  /** The nonce that the evidence of a request with this `encapsulated` must carry. */
  evidenceNonce(encapsulated: Uint8Array): Bytes {
    return bindNonce(this.challenge, encapsulated)
  }

  /**
   * Completes the handshake, once.
   * @param request - its evidence is verified: of `evidenceNonce(encapsulated)` and, as confirmation key, `enclaveKey`.
   * @param options.sign - Ed25519 by the KMS identity.
   * @throws {KeyriseError} ERR_SESSION_INVALID: used before, or a key of low order.
   */
  async accept(
    request: HandshakeRequest,
    options: { readonly sign: (transcript: Bytes) => Bytes; readonly random: Random },
  ): Promise<{ session: Session; reply: KmsReplies['handshake'] }> {
    const keys = this.#keys
    this.#keys = undefined
    if (keys === undefined) throw new KeyriseError('ERR_SESSION_INVALID', { detail: 'used' })
    const { open, sender } = await orRefuse('ERR_SESSION_INVALID', async () => ({
      open: await suite.SetupRecipient(keys, request.encapsulated, { info: INFO.toKms }),
      sender: await suite.SetupSender(await suite.DeserializePublicKey(request.enclaveKey), { info: INFO.toEnclave }),
    }))
    const unsigned = {
      session: options.random.fill(allocate(ID_SIZE)),
      encapsulated: copyBytes(sender.encapsulatedSecret),
    }
    const transcript = transcriptOf(this.challenge, request, unsigned)
    return {
      session: new HpkeSession(unsigned.session, transcript, { seal: sender.ctx, open }),
      reply: { ...unsigned, signature: options.sign(transcript) },
    }
  }
}

/** The enclave’s side of one handshake. Nothing is sealed to the KMS’s key before its signature was verified. */
export class SessionOpening {
  /** Ephemeral X25519: the evidence’s confirmation key. */
  readonly enclaveKey: Bytes
  readonly encapsulated: Bytes
  /** The nonce to attest with, which is not the challenge’s own: it covers `encapsulated` too. */
  readonly evidenceNonce: Bytes
  readonly #challenge: KmsReplies['challenge']
  #state: { readonly keys: EphemeralKeyPair; readonly seal: SealContext } | undefined

  private constructor(
    challenge: KmsReplies['challenge'],
    publicParts: { enclaveKey: Bytes; encapsulated: Bytes },
    state: { keys: EphemeralKeyPair; seal: SealContext },
  ) {
    this.#challenge = challenge
    this.enclaveKey = publicParts.enclaveKey
    this.encapsulated = publicParts.encapsulated
    this.evidenceNonce = bindNonce(challenge, publicParts.encapsulated)
    this.#state = state
  }

  /** @param challenge - claimed by the host. @throws {KeyriseError} ERR_KMS_UNTRUSTED: a key of low order. */
  static async create(challenge: KmsReplies['challenge']): Promise<SessionOpening> {
    const keys = await suite.GenerateKeyPair(false)
    const enclaveKey = copyBytes(await suite.SerializePublicKey(keys.publicKey))
    const { encapsulatedSecret, ctx } = await orRefuse('ERR_KMS_UNTRUSTED', async () =>
      suite.SetupSender(await suite.DeserializePublicKey(challenge.kmsKey), { info: INFO.toKms }),
    )
    return new SessionOpening(
      challenge,
      { enclaveKey, encapsulated: copyBytes(encapsulatedSecret) },
      { keys, seal: ctx },
    )
  }

  /**
   * Completes the handshake, once: the KMS identity’s signature over the transcript, then the keys.
   * @param options.evidence - as it was sent.
   * @param options.kmsIdentity - Ed25519, what this launch trusts.
   * @throws {KeyriseError} ERR_KMS_UNTRUSTED; ERR_SESSION_INVALID: used before.
   */
  async finish(options: {
    readonly reply: KmsReplies['handshake']
    readonly evidence: Bytes
    readonly kmsIdentity: Uint8Array
  }): Promise<Session> {
    const state = this.#state
    this.#state = undefined
    if (state === undefined) throw new KeyriseError('ERR_SESSION_INVALID', { detail: 'used' })
    const { reply, evidence, kmsIdentity } = options
    const request = { enclaveKey: this.enclaveKey, encapsulated: this.encapsulated, evidence }
    const transcript = transcriptOf(this.#challenge, request, reply)
    if (!verifyEd25519(kmsIdentity, transcript, reply.signature)) throw new KeyriseError('ERR_KMS_UNTRUSTED')
    const open = await orRefuse('ERR_KMS_UNTRUSTED', () =>
      suite.SetupRecipient(state.keys, reply.encapsulated, { info: INFO.toEnclave }),
    )
    return new HpkeSession(reply.session, transcript, { seal: state.seal, open })
  }
}
