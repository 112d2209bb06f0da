import * as v from 'valibot'
import { GRADIENT_SIZE, STATISTICS_SIZE } from './quantise.js'

/** What crosses between host and enclaves, as schemas: the gate checks every value against them, in both directions. */

const PARTY_COUNT_MAX = 16
const ROUND_COUNT_MAX = 1000
const CIPHERTEXT_SIZE_BYTES_MAX = 140_000
const KEY_SIZE_BYTES_MAX = 200_000
export const STATISTICS_ROUND = 0

const bytes = (sizeMax: number, sizeMin = sizeMax) =>
  v.custom<Uint8Array>((value) => value instanceof Uint8Array && value.length >= sizeMin && value.length <= sizeMax)
const FlowName = v.pipe(v.string(), v.regex(/^[a-z][a-z0-9-]{0,31}$/))
/** Sorted, each once: a set has one spelling, so that it can be signed and compared. */
const FlowNames = v.pipe(
  v.array(FlowName),
  v.minLength(1),
  v.maxLength(PARTY_COUNT_MAX),
  v.check((names) => names.every((name, index) => index === 0 || (names[index - 1] as string) < name), 'sorted'),
)
const Count = (max: number) => v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(max))
const Round = Count(ROUND_COUNT_MAX)
const Signature = bytes(64)

/** A public commitment to a stored secret: shows later that what came back is what was stored. */
const Receipt = v.strictObject({ name: v.pipe(v.string(), v.maxLength(256)), commitment: bytes(32) })
const Receipts = v.pipe(v.array(Receipt), v.maxLength(64))
export type Receipt = v.InferOutput<typeof Receipt>

export const Nothing = v.strictObject({})
export const Receipted = v.strictObject({ receipts: Receipts })

/** The sum of one hospital is that hospital's own values: whatever a host proposes, it takes two. */
const QUORUM_MIN = 2

/** What the parties agree on before they start. Hospitals stand in the order of their names. */
export const Terms = v.pipe(
  v.strictObject({
    hospitals: FlowNames,
    decryptor: FlowName,
    quorum: v.pipe(Count(PARTY_COUNT_MAX), v.minValue(QUORUM_MIN)),
    /** Training rounds; round 0, before them, sums statistics. */
    roundCount: Round,
  }),
  v.check(({ hospitals, decryptor, quorum }) => quorum <= hospitals.length && !hospitals.includes(decryptor)),
)
export type Terms = v.InferOutput<typeof Terms>

export const Contribution = v.strictObject({
  flow: FlowName,
  round: Round,
  participants: FlowNames,
  ciphertext: bytes(CIPHERTEXT_SIZE_BYTES_MAX, 1),
  /** Over `contributionStatement(…)`. */
  signature: Signature,
})
export type Contribution = v.InferOutput<typeof Contribution>

/** The sum of one round, public from here on. */
export const Release = v.strictObject({
  round: Round,
  participants: FlowNames,
  /** Int32, little-endian. */
  sum: bytes(4 * Math.max(STATISTICS_SIZE, GRADIENT_SIZE), 4),
  /** The decryptor’s, over `releaseStatement(…)`. */
  signature: Signature,
})
export type Release = v.InferOutput<typeof Release>
const Releases = v.pipe(v.array(Release), v.maxLength(ROUND_COUNT_MAX + 1))

// The hospital's enclave

export const Enrolment = v.strictObject({
  /** X25519: the data station seals the records to it. */
  intakeKey: bytes(32),
  /** What the archive keeps in place of the password. */
  verifier: v.strictObject({ salt: bytes(16), storedKey: bytes(32) }),
  receipts: Receipts,
})
export const Joining = v.strictObject({ terms: Terms, homomorphicKey: bytes(KEY_SIZE_BYTES_MAX, 1) })
export const Joined = v.strictObject({ authorization: bytes(512, 1), receipts: Receipts })
export const Admission = v.strictObject({ admission: bytes(512, 1) })
export const Training = v.strictObject({ round: Round, participants: FlowNames, releases: Releases })
export const Trained = v.strictObject({ contribution: Contribution, receipts: Receipts })
export const Conclusion = v.strictObject({ releases: Releases })
export const Concluded = v.strictObject({ weights: bytes(8 * 64, 8), receipts: Receipts })

// The decryptor's enclave

export const Opened = v.strictObject({ homomorphicKey: bytes(KEY_SIZE_BYTES_MAX, 1), receipts: Receipts })
export const Admitting = v.strictObject({ flow: FlowName, authorization: bytes(512, 1) })
export const Admitted = v.strictObject({ admission: bytes(512, 1), receipts: Receipts })
export const Releasing = v.strictObject({
  round: Round,
  /** What the aggregator says the contributions add up to. */
  sum: bytes(CIPHERTEXT_SIZE_BYTES_MAX, 1),
  contributions: v.pipe(v.array(Contribution), v.maxLength(PARTY_COUNT_MAX)),
})
export const Released = v.strictObject({ release: Release, receipts: Receipts })

// The archive, which the hospital's enclave calls

export const Challenge = v.strictObject({ nonce: bytes(32) })
export const Login = v.strictObject({ nonce: bytes(32), proof: bytes(32) })
export const SealedRecords = v.strictObject({ sealed: bytes(16 * 1024 * 1024, 1) })
export const Delivery = v.strictObject({ nonce: bytes(32), proof: bytes(32), sealed: bytes(16 * 1024 * 1024, 1) })
