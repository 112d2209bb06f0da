import { concatBytes, copyBytes, type Bytes } from './bytes.js'
import { decodeCbor, encodeCbor, type Cbor } from './cbor.js'
import { FieldReader } from './check.js'
import { KeyriseError } from './errors.js'
import { ROOT_KEY_COUNT_MAX, ROSTER_MEMBER_COUNT_MAX } from './limits.js'
import { parseFlowId, type FlowId } from './names.js'
import { equalHeads, readPublished, type Head } from './session.js'

/** What keys of the KMS sign: certificates of root keys, proofs of what a root key opened, rosters of a task’s members, acknowledgements. */

const CODE = 'ERR_REQUEST_INVALID'

/** What a root key is made of, by the age recipient that seals to it. */
export const ROOT_SUITES = ['x25519', 'mlkem768x25519', 'rsa-oaep-3072', 'rsa-oaep-4096'] as const
export type RootSuite = (typeof ROOT_SUITES)[number]
export const isRootSuite = (claimed: string): claimed is RootSuite =>
  (ROOT_SUITES as readonly string[]).includes(claimed)

/** A root key version's public halves. */
export interface RootCertificate {
  /** `root@1`: id, then version. */
  readonly key: string
  readonly suite: RootSuite
  /** To seal to: 32 bytes of X25519, 1216 of X-Wing, or RSA as SubjectPublicKeyInfo in DER (RFC 8017, Appendix A.1.1). */
  readonly encryptionKey: Bytes
  /** Proves what the root key opened: 32 bytes of Ed25519, or a second RSA key, in DER as above. */
  readonly originKey: Bytes
}

/** Of either half, in DER: 422 bytes for 3072 bits, 550 for 4096. */
const RSA_PUBLIC_SIZE_BYTES_MAX = 1024
const ENCRYPTION_KEY_SIZE_BYTES: Readonly<Record<RootSuite, readonly [min: number, max: number]>> = {
  x25519: [32, 32],
  mlkem768x25519: [1216, 1216],
  'rsa-oaep-3072': [1, RSA_PUBLIC_SIZE_BYTES_MAX],
  'rsa-oaep-4096': [1, RSA_PUBLIC_SIZE_BYTES_MAX],
}

export const isRsa = (suite: RootSuite): boolean => suite === 'rsa-oaep-3072' || suite === 'rsa-oaep-4096'

/** @param fields - which have `key`, `suite` and both public halves. @throws {KeyriseError} the reader’s code. */
export const readRootCertificate = (fields: FieldReader): RootCertificate => {
  const suite = fields.text('suite', 32)
  if (!isRootSuite(suite)) return fields.refuse('suite')
  const [sizeMin, sizeMax] = ENCRYPTION_KEY_SIZE_BYTES[suite]
  return {
    key: fields.text('key', 64),
    suite,
    encryptionKey: fields.bytes('encryptionKey', sizeMin, sizeMax),
    originKey: isRsa(suite) ? fields.bytes('originKey', 1, RSA_PUBLIC_SIZE_BYTES_MAX) : fields.bytes('originKey', 32),
  }
}

/** The part of a certificate that the KMS identity signs. A certificate is this, then the signature, 64 bytes. */
export const encodeCertificateBody = (certificate: RootCertificate): Bytes =>
  encodeCbor(['keyrise/v1/root-key', { ...certificate }])
export const joinCertificate = (body: Uint8Array, signature: Uint8Array): Bytes => concatBytes(body, signature)

/** Splits a certificate; the caller verifies `signature` over `body` with the KMS identity before it uses any field. */
export const splitCertificate = (claimed: Uint8Array): { body: Bytes; signature: Bytes } => {
  if (claimed.length <= 64) throw new KeyriseError(CODE, { detail: 'certificate' })
  return { body: copyBytes(claimed.subarray(0, -64)), signature: copyBytes(claimed.subarray(-64)) }
}

/** @param body - verified. */
export const decodeCertificateBody = (body: Uint8Array): RootCertificate =>
  readRootCertificate(
    new FieldReader(readTagged('keyrise/v1/root-key', body), ['key', 'suite', 'encryptionKey', 'originKey'], CODE),
  )

/** `[tag, value]`: every signed structure says what it is, so that no signature serves for another. */
export const readTagged = (tag: string, bytes: Uint8Array): unknown => {
  const value = decodeCbor(bytes)
  if (!Array.isArray(value) || value.length !== 2 || value[0] !== tag) throw new KeyriseError(CODE, { detail: tag })
  return value[1]
}

/** One signature for each root key that opened something in a reply. */
export type Proof = { readonly key: string; readonly signature: Bytes }
export const encodeProofs = (proofs: readonly Proof[]): Bytes => encodeCbor(proofs)
export const decodeProofs = (claimed: Uint8Array): Proof[] =>
  new FieldReader({ proofs: decodeCbor(claimed) }, ['proofs'], CODE).list('proofs', ROOT_KEY_COUNT_MAX, (item) => {
    const f = new FieldReader(item, ['key', 'signature'], CODE)
    return { key: f.text('key', 64), signature: f.bytes('signature', 64, PROOF_SIZE_BYTES_MAX) }
  })
/** A block of RSA with 4096 bits. */
const PROOF_SIZE_BYTES_MAX = 512

/** What comes back was opened in this session, for this request, as this reply, when the flow was at this epoch. */
export interface ProofParts {
  readonly handshakeDigest: Uint8Array
  readonly requestDigest: Uint8Array
  readonly metaDigest: Uint8Array
  readonly secretsDigest: Uint8Array
  /** Of the flow’s head in the ledger; 0 before the first. */
  readonly epoch: number
}

/** What a root key's origin half signs (M12). Digests are SHA-256. */
export const proofTranscript = (parts: ProofParts): Bytes =>
  encodeCbor([
    'keyrise/v1/origin-proof',
    parts.handshakeDigest,
    parts.requestDigest,
    parts.metaDigest,
    parts.secretsDigest,
    parts.epoch,
  ])

/**
 * What an RSA origin half turns over with its private-key operation, and its public half recovers: 76 bytes at most. A third of
 * the modulus would be too long for a padding that is fixed (Brier, Clavier, Coron, Naccache: Cryptanalysis of RSA signatures with
 * fixed-pattern padding), hence the digest. @param transcriptDigest - SHA-256 of `proofTranscript`.
 */
export const proofMessage = (transcriptDigest: Uint8Array, epoch: number): Bytes =>
  encodeCbor(['keyrise/v1/origin-proof-digest', transcriptDigest, epoch])

/** A state of a flow that the ledger holds, durably: what a claim or a commit has made of it. */
export interface Acknowledged {
  readonly head: Head | null
  readonly incarnation: number
}

/** What the KMS identity signs when a claim or a commit is durable: who has it can show a ledger that it is not the newest. */
export const encodeAcknowledgement = (flow: FlowId, { head, incarnation }: Acknowledged): Bytes =>
  encodeCbor(['keyrise/v1/acknowledgement', { flow, head: head && { ...head }, incarnation }])

/** That an operator lets one recovery of a flow take what the store shows, and the ledger's state that is given up for it. */
export interface StaleAcceptance extends Acknowledged {
  readonly flow: FlowId
  /** The operator’s, 1 to REASON_LENGTH_MAX characters. */
  readonly reason: string
  /** Since the epoch, by the operator’s machine. */
  readonly timeMs: number
}

/** What the KMS identity signs as the receipt of a `StaleAcceptance`. */
export const encodeStaleAcceptance = ({ flow, reason, timeMs, head, incarnation }: StaleAcceptance): Bytes =>
  encodeCbor(['keyrise/v1/stale-acceptance', { flow, reason, timeMs, head: head && { ...head }, incarnation }])

/** True when a ledger that acknowledged `newer` cannot be in the state `claimed`: neither ever falls, and no epoch has two contents. */
export const isAhead = (newer: Acknowledged, claimed: Acknowledged): boolean => {
  const [epoch, claimedEpoch] = [newer.head?.epoch ?? 0, claimed.head?.epoch ?? 0]
  if (newer.incarnation > claimed.incarnation || epoch > claimedEpoch) return true
  return epoch === claimedEpoch && !equalHeads(newer.head, claimed.head)
}

export interface RosterEntry {
  readonly flow: FlowId
  readonly image: string
  readonly measurement: Bytes
  readonly signingKey: Bytes
  readonly published: Readonly<Record<string, Bytes>>
}

/** What the KMS identity signs as the roster of `task`. */
export const encodeRoster = (task: FlowId, members: readonly RosterEntry[]): Bytes =>
  encodeCbor(['keyrise/v1/roster', { task, members: members as unknown as Cbor }])

/** @param body - verified against the KMS identity. */
export const decodeRoster = (body: Uint8Array): { task: FlowId; members: RosterEntry[] } => {
  const f = new FieldReader(readTagged('keyrise/v1/roster', body), ['task', 'members'], CODE)
  return {
    task: parseFlowId(f.claimed('task')),
    members: f.list('members', ROSTER_MEMBER_COUNT_MAX, (item) => {
      const m = new FieldReader(item, ['flow', 'image', 'measurement', 'signingKey', 'published'], CODE)
      return {
        flow: parseFlowId(m.claimed('flow')),
        image: m.text('image', 64),
        measurement: m.bytes('measurement', 32),
        signingKey: m.bytes('signingKey', 32),
        published: readPublished(m.claimed('published')),
      }
    }),
  }
}
