import { allocate, copyBytes, type Bytes } from '../../protocol/bytes.js'
import { x25519PublicKey } from '../../protocol/crypto/curves.js'
import { ed25519Signer } from '../../protocol/crypto/keys.js'
import { nodeRandom, sha256 } from '../../protocol/crypto/primitives.js'
import { Secret } from '../../protocol/crypto/secret.js'
import { SessionOffer, type Session } from '../../protocol/crypto/session.js'
import { decodeKmsRequest, encodeKmsReply, encodeParts, type Parts } from '../../protocol/kms.js'
import { parseFlowId } from '../../protocol/names.js'
import type { KmsChannel } from '../../protocol/ports.js'
import { digestOfItems, encodeReceiptBody, firstLink, joinReceipt, type Receipt } from '../../protocol/receipts.js'
import {
  decodeSessionRequest,
  encodeSessionReply,
  encodeSessionRequest,
  type ItemStatus,
  type OpenReply,
  type SessionRequest,
} from '../../protocol/session.js'
import { encodeCertificateBody, encodeProofs, joinCertificate, proofTranscript } from '../../protocol/statements.js'
import { digestOf } from '../kms/attested-client.js'

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
  epoch = 0
  secrets: Bytes = NOTHING
  /** Changes what the receipts say, before they are signed. */
  receipted: (right: Receipt) => Receipt = (right) => right
  /** Whose signature receipts have. */
  receiptsBy = this.identity
  #offer: SessionOffer | undefined
  #session: Session | undefined
  #evidence: Bytes = NOTHING

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
        this.#evidence = request.evidence
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
      epoch: this.epoch,
    })
    return encodeProofs([{ key: 'root@1', signature: by.sign(message) }])
  }

  /** The receipt of an answer to `request` about `opened` of the headers, as the right one is made. */
  receipt(kind: 'open' | 'unwrap' | 'migration', request: Uint8Array, opened?: readonly Uint8Array[]): Bytes {
    const body = encodeReceiptBody(
      this.receipted({
        ...firstLink(this.identity.publicKey),
        kms: this.identity.publicKey,
        timeMs: 1,
        kind,
        flow: parseFlowId('flow-1'),
        measurement: digestOf(1),
        evidenceDigest: sha256(this.#evidence),
        requestDigest: sha256(request),
        incarnation: 0,
        ...(opened === undefined ? {} : { openedCount: opened.length, openedDigest: digestOfItems(opened) }),
      }),
    )
    return joinReceipt(body, this.receiptsBy.sign(body))
  }

  /** What answers `unwrap`, with items of the test’s own. */
  unwrapped(items: readonly ItemStatus[], headers: readonly Uint8Array[]): Bytes {
    const request = encodeSessionRequest({ op: 'unwrap', headers: headers.map(copyBytes) })
    const opened = headers.filter((_, index) => items[index]?.error === null)
    return encodeSessionReply('unwrap', { items, epoch: this.epoch, receipt: this.receipt('unwrap', request, opened) })
  }

  /** What answers `open`, with certificates of the test’s own. */
  opened(certificates: readonly Bytes[], request: Uint8Array, migratesFrom: OpenReply['migratesFrom'] = null): Bytes {
    const receipt = this.receipt('open', request)
    return encodeSessionReply('open', {
      certificates,
      incarnation: 0,
      head: null,
      staleAccepted: false,
      migratesFrom,
      predecessors: [],
      receipt,
    })
  }

  #answer(request: SessionRequest, claimed: Uint8Array, session: Session): Parts {
    if (request.op === 'open') {
      const meta = this.opened([this.certificate()], claimed)
      return { meta, secrets: nodeRandom.fill(allocate(32)), proof: NOTHING }
    }
    const meta = this.unwrapped(this.items, request.op === 'unwrap' ? request.headers : [])
    const parts = { meta, secrets: copyBytes(this.secrets) }
    return session === this.#session ? { ...parts, proof: this.prove(parts, claimed) } : { ...parts, proof: NOTHING }
  }
}
