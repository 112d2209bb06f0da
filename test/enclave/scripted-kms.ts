import { allocate, copyBytes, type Bytes } from '../../protocol/bytes.js'
import { x25519PublicKey } from '../../protocol/crypto/curves.js'
import { ed25519Signer } from '../../protocol/crypto/keys.js'
import { nodeRandom, sha256 } from '../../protocol/crypto/primitives.js'
import { Secret } from '../../protocol/crypto/secret.js'
import { SessionOffer, type Session } from '../../protocol/crypto/session.js'
import { decodeKmsRequest, encodeKmsReply, encodeParts, type Parts } from '../../protocol/kms.js'
import type { KmsChannel } from '../../protocol/ports.js'
import {
  decodeSessionRequest,
  encodeSessionReply,
  type ItemStatus,
  type SessionRequest,
} from '../../protocol/session.js'
import { encodeCertificateBody, encodeProofs, joinCertificate, proofTranscript } from '../../protocol/statements.js'

const NOTHING = allocate(0)
const signer = () => ed25519Signer(Secret.random(32, nodeRandom))

/** What one call of a session is answered with, made from what would be right. */
export type Script = (right: Parts, request: SessionRequest) => Parts

/** A KMS that keeps the handshake and, inside it, answers as a test tells it to: what an enclave must not swallow even then. */
export class ScriptedKms implements KmsChannel {
  readonly identity = signer()
  readonly origin = signer()
  script: Script = (right) => right
  items: readonly ItemStatus[] = []
  secrets: Bytes = NOTHING
  #offer: SessionOffer | undefined
  #session: Session | undefined

  async exchange(frame: Uint8Array): Promise<Uint8Array> {
    const request = decodeKmsRequest(frame)
    switch (request.op) {
      case 'challenge':
        this.#offer = await SessionOffer.create(nodeRandom)
        return encodeKmsReply({ ...this.#offer.challenge })
      case 'handshake': {
        const accepted = await this.#offer?.accept(request, {
          sign: (transcript) => this.identity.sign(transcript),
          random: nodeRandom,
        })
        if (accepted === undefined) throw new Error('no offer')
        this.#session = accepted.session
        return encodeKmsReply({ ...accepted.reply })
      }
      case 'call': {
        const session = this.#session
        if (session === undefined) throw new Error('no session')
        const claimed = await session.open(request.sealed)
        const asked = decodeSessionRequest(claimed)
        return encodeKmsReply({
          sealed: await session.seal(encodeParts(this.script(this.#answer(asked, claimed, session), asked))),
        })
      }
      default:
        throw new Error(request.op)
    }
  }

  certificate(by = this.identity): Bytes {
    using key = Secret.random(32, nodeRandom)
    const body = encodeCertificateBody({
      key: 'root@1',
      suite: 'x25519',
      encryptionKey: x25519PublicKey(key),
      originKey: this.origin.publicKey,
    })
    return joinCertificate(body, by.sign(body))
  }

  /** A proof by `by` over `parts`, as the right one is made. */
  prove(parts: Omit<Parts, 'proof'>, request: Uint8Array, by = this.origin): Bytes {
    const message = proofTranscript({
      handshakeDigest: this.#session?.transcriptDigest ?? NOTHING,
      requestDigest: sha256(request),
      metaDigest: sha256(parts.meta),
      secretsDigest: sha256(parts.secrets),
    })
    return encodeProofs([{ key: 'root@1', signature: by.sign(message) }])
  }

  #answer(request: SessionRequest, claimed: Uint8Array, session: Session): Parts {
    if (request.op === 'open') {
      const meta = encodeSessionReply('open', {
        certificates: [this.certificate()],
        incarnation: 0,
        head: null,
        staleAccepted: false,
      })
      return { meta, secrets: nodeRandom.fill(allocate(32)), proof: NOTHING }
    }
    const meta = encodeSessionReply('unwrap', { items: this.items })
    const parts = { meta, secrets: copyBytes(this.secrets) }
    return session === this.#session ? { ...parts, proof: this.prove(parts, claimed) } : { ...parts, proof: NOTHING }
  }
}
