import { parseHeader } from '../../protocol/age-header.js'
import { concatBytes, copyBytes, type Bytes } from '../../protocol/bytes.js'
import type { EnvelopeContext } from '../../protocol/context.js'
import { ed25519Signer } from '../../protocol/crypto/keys.js'
import { openPayloadOf, sealEnvelope, type Origin } from '../../protocol/crypto/envelope.js'
import { nodeRandom } from '../../protocol/crypto/primitives.js'
import { x25519Recipient } from '../../protocol/crypto/recipients.js'
import { Secret } from '../../protocol/crypto/secret.js'
import { SessionOpening, type Session } from '../../protocol/crypto/session.js'
import { prepareEvidence, type Claims } from '../../protocol/evidence.js'
import { decodeKmsReply, decodeParts, encodeKmsRequest } from '../../protocol/kms.js'
import { parseFlowId } from '../../protocol/names.js'
import type { KmsChannel } from '../../protocol/ports.js'
import {
  decodeSessionReply,
  encodeSessionRequest,
  type SessionReplies,
  type SessionRequest,
} from '../../protocol/session.js'
import { decodeCertificateBody, splitCertificate } from '../../protocol/statements.js'

/** A platform of the tests’ own: it attests whatever it is told to. */
export class TestPlatform {
  readonly #signer = ed25519Signer(Secret.random(32, nodeRandom))
  readonly publicKey: Bytes = this.#signer.publicKey

  attest(claims: Partial<Claims> & Pick<Claims, 'nonce' | 'confirmationKey' | 'measurement'>): Bytes {
    const { toSign, join } = prepareEvidence({
      name: 'party',
      svn: 1,
      configDigest: new Uint8Array(32),
      debug: false,
      signed: null,
      ...claims,
    })
    return join(this.#signer.sign(toSign))
  }
}

export interface ClientOptions {
  readonly kms: KmsChannel
  readonly kmsIdentity: Uint8Array
  readonly platform: Pick<TestPlatform, 'attest'>
  readonly image: Bytes
  /** Changes the evidence. */
  readonly claims?: Partial<Claims>
}

export interface Answer<Op extends SessionRequest['op']> {
  readonly reply: SessionReplies[Op]
  readonly request: Bytes
  readonly meta: Bytes
  readonly secrets: Bytes
  readonly proof: Bytes
}

/** What an enclave does with a KMS, one step at a time. */
export class AttestedClient {
  readonly session: Session
  readonly #options: ClientOptions
  origin: Origin | undefined

  private constructor(session: Session, options: ClientOptions) {
    this.session = session
    this.#options = options
  }

  static async connect(options: ClientOptions): Promise<AttestedClient> {
    const { kms, kmsIdentity, platform, image } = options
    const challenge = decodeKmsReply('challenge', await kms.exchange(encodeKmsRequest({ op: 'challenge' })))
    const opening = await SessionOpening.create(challenge)
    const { enclaveKey, encapsulated } = opening
    const evidence = platform.attest({
      nonce: opening.evidenceNonce,
      confirmationKey: enclaveKey,
      measurement: image,
      ...options.claims,
    })
    const frame = encodeKmsRequest({
      op: 'handshake',
      handshake: challenge.handshake,
      enclaveKey,
      encapsulated,
      evidence,
    })
    const reply = decodeKmsReply('handshake', await kms.exchange(frame))
    return new AttestedClient(await opening.finish({ reply, evidence, kmsIdentity }), options)
  }

  /** The frame of a call, to send or to play with. */
  async frame(request: SessionRequest): Promise<Bytes> {
    return encodeKmsRequest({
      op: 'call',
      session: this.session.id,
      sealed: await this.session.seal(encodeSessionRequest(request)),
    })
  }

  async call<Op extends SessionRequest['op']>(request: SessionRequest & { readonly op: Op }): Promise<Answer<Op>> {
    const { sealed } = decodeKmsReply('call', await this.#options.kms.exchange(await this.frame(request)))
    const parts = decodeParts(await this.session.open(sealed))
    const reply = decodeSessionReply<Op>(request.op, parts.meta)
    return {
      reply,
      request: encodeSessionRequest(request),
      meta: copyBytes(parts.meta),
      secrets: copyBytes(parts.secrets),
      proof: copyBytes(parts.proof),
    }
  }

  /** Opens a flow and keeps its origin key. */
  async open(flow = 'flow-1', task = 'task-1'): Promise<SessionReplies['open']> {
    const { reply, secrets } = await this.call({
      op: 'open',
      flow: parseFlowId(flow),
      task: parseFlowId(task),
      holds: 0,
    })
    this.origin = { authority: this.#options.kmsIdentity, key: Secret.take(secrets) }
    return reply
  }

  /** Opens and claims, as a first launch does. */
  async launch(flow = 'flow-1', task = 'task-1'): Promise<number> {
    const { head, incarnation } = await this.open(flow, task)
    const { reply } = await this.call({ op: 'claim', head, incarnation, adopt: null, stale: false })
    return reply.incarnation
  }
}

/** What an enclave does with an envelope that was sealed to a root key. */
export const openByKms = async (client: AttestedClient, envelope: Bytes): Promise<Bytes> => {
  const header = envelope.slice(0, parseHeader(envelope).sizeBytes)
  const { secrets } = await client.call({ op: 'unwrap', headers: [header] })
  using fileKey = Secret.take(secrets)
  return openPayloadOf(envelope, fileKey).plaintext
}

/** The public halves of the newest root key. */
export const newestKey = ({ certificates }: SessionReplies['open']) => {
  const [first] = certificates
  if (first === undefined) throw new Error('no certificate')
  return decodeCertificateBody(splitCertificate(first).body)
}

/** An envelope as an enclave of `flow` and `image` seals it to a root key. */
export const sealToKms = (
  plaintext: Uint8Array,
  options: {
    encryptionKey: Uint8Array
    origin?: Origin | undefined
    flow?: string
    image: Bytes
    context?: Partial<EnvelopeContext>
  },
): Bytes =>
  sealEnvelope(plaintext, {
    recipients: [x25519Recipient(options.encryptionKey)],
    context: {
      flow: parseFlowId(options.flow ?? 'flow-1'),
      task: parseFlowId('task-1'),
      kind: 'root',
      name: 'root',
      epoch: 0,
      incarnation: 1,
      image: options.image,
      ...options.context,
    },
    originKeys: options.origin === undefined ? [] : [options.origin],
    random: nodeRandom,
  })

export const digestOf = (byte: number): Bytes => concatBytes(new Uint8Array(32).fill(byte))
