import type { Bytes } from '../bytes.js'
import type { KmsReplies, KmsRequest } from '../kms.js'
import type { Random } from '../ports.js'

type HandshakeRequest = Pick<Extract<KmsRequest, { op: 'handshake' }>, 'enclaveKey' | 'encapsulated' | 'evidence'>

/** Two HPKE contexts, one for each direction. Frames are in order, and each opens once. */
export interface Session {
  /** 16 bytes. */
  readonly id: Bytes
  /** SHA-256 of the transcript that the KMS signed. */
  readonly transcriptDigest: Bytes
  seal(plaintext: Uint8Array): Promise<Bytes>
  /** @throws {KeyriseError} ERR_SESSION_INVALID. */
  open(sealed: Uint8Array): Promise<Bytes>
  close(): void
}

/** The KMS's side of a handshake; good for one `accept`. */
export class SessionOffer {
  /** What answers `challenge`. */
  readonly challenge: KmsReplies['challenge']

  private constructor(challenge: KmsReplies['challenge']) {
    this.challenge = challenge
  }

  static create(_random: Random): Promise<SessionOffer> {
    throw new Error('being written')
  }

  /**
   * The nonce that the evidence must carry. It covers the KMS's nonce, its ephemeral key and `encapsulated`: were the last
   * not bound, a host could swap in an encapsulation of its own and send requests in the enclave's name.
   */
  evidenceNonce(_encapsulated: Uint8Array): Bytes {
    throw new Error('being written')
  }

  /** @param request - its evidence was verified, with `evidenceNonce` and `enclaveKey` as its nonce and confirmation key. */
  accept(
    _request: HandshakeRequest,
    _options: { sign: (transcript: Bytes) => Bytes; random: Random },
  ): Promise<{ session: Session; reply: KmsReplies['handshake'] }> {
    throw new Error('being written')
  }
}

/** The enclave's side. */
export class SessionOpening {
  /** Ephemeral X25519: the evidence's confirmation key. */
  readonly enclaveKey: Bytes
  readonly encapsulated: Bytes
  /** The nonce to attest with: never the challenge's own, see `SessionOffer.evidenceNonce`. */
  readonly evidenceNonce: Bytes

  private constructor(enclaveKey: Bytes, encapsulated: Bytes, evidenceNonce: Bytes) {
    this.enclaveKey = enclaveKey
    this.encapsulated = encapsulated
    this.evidenceNonce = evidenceNonce
  }

  static create(_challenge: KmsReplies['challenge']): Promise<SessionOpening> {
    throw new Error('being written')
  }

  /** @throws {KeyriseError} ERR_KMS_UNTRUSTED. */
  finish(_options: { reply: KmsReplies['handshake']; evidence: Uint8Array; kmsIdentity: Uint8Array }): Promise<Session> {
    throw new Error('being written')
  }
}
