import { defineEnclave, ecall, ocall, refuse, type EntryName, type Flow, type RosterMember } from 'keyrise/enclave'
import { openMessage, sealMessage } from './channel.js'
import {
  encodeTerms,
  randomBytes,
  readTerms,
  receiptsOf,
  required,
  store,
  TERMS,
  type Entries,
} from './enclave-entries.js'
import { loadScheme } from './homomorphic.js'
import { intakeKeyOf, openRecords } from './intake.js'
import { maskValues } from './mask.js'
import * as messages from './messages.js'
import { STATISTICS_ROUND, type Contribution, type Release, type Terms } from './messages.js'
import { decodeNumbers, encodeNumbers, gradientOf, predict, standardise, statisticsOf, WEIGHT_COUNT } from './model.js'
import { provePassword, verifierOf } from './password.js'
import { decodeContribution, encodeContribution } from './contribution.js'
import { quantiseGradient, quantiseStatistics } from './quantise.js'
import { COMMITMENT_KEY } from './receipts.js'
import { decodeRecords, encodeRecords, type Records } from './records.js'
import { replayReleases } from './replay.js'
import * as statements from './statements.js'

/**
 * A hospital's enclave. It keeps every secret of its flow through any crash: each ECALL either finds its answer recorded and
 * gives it again, or computes it and records it, in one checkpoint, before it answers. So every call may be repeated.
 */

const INTAKE_SEED: EntryName = 'business-key/intake'
const PASSWORD: EntryName = 'password/archive'
const RECORDS: EntryName = 'pending-data/records'
const SCALED_RECORDS: EntryName = 'processed-data/records'
const HOMOMORPHIC_KEY: EntryName = 'processed-data/homomorphic-key'
const AUTHORIZATION: EntryName = 'authorization/release'
const INTERACTION: EntryName = 'interaction-id/task'
const RESIDUAL: EntryName = 'intermediate-result/residual'
const PREDICTIONS: EntryName = 'final-result/predictions'
const sessionWith = (peer: string): EntryName => `session/${peer}`
const CONTRIBUTION_PREFIX = 'intermediate-result/round-'
const contributionTo = (round: number): EntryName => `${CONTRIBUTION_PREFIX}${String(round)}`
/** The archive's salt is public and the same for all: the password has 256 bits of its own. */
const SALT = new Uint8Array(16)

const archive = {
  archiveChallenge: ocall({ input: messages.Nothing, output: messages.Challenge }),
  archiveRead: ocall({ input: messages.Login, output: messages.SealedRecords }),
  archiveDeliver: ocall({ input: messages.Delivery, output: messages.Nothing }),
}

/** Makes the hospital's own secrets. */
const enrol = ecall({ input: messages.Nothing, output: messages.Enrolment }, async ({ flow }) => {
  const names = [COMMITMENT_KEY, INTAKE_SEED, PASSWORD] as const
  if ((await flow.read(PASSWORD)) === undefined) {
    await flow.checkpoint(Object.fromEntries(names.map((name) => [name, randomBytes(32)])))
  }
  await flow.publish({ agreement: flow.agreementKey })
  return {
    intakeKey: await intakeKeyOf(await required(flow, INTAKE_SEED)),
    verifier: verifierOf(await required(flow, PASSWORD), SALT),
    receipts: await receiptsOf(flow, names),
  }
})

/** Fetches the records from the archive and seals them before anything else happens to them. */
const prepare = ecall(
  { input: messages.Nothing, output: messages.Receipted, ocalls: archive },
  async ({ flow, ocalls }) => {
    if ((await flow.read(RECORDS)) !== undefined) return { receipts: await receiptsOf(flow, [RECORDS]) }
    const { nonce } = await ocalls.archiveChallenge({})
    const proof = provePassword(await required(flow, PASSWORD), SALT, statements.readingStatement(nonce))
    const { sealed } = await ocalls.archiveRead({ nonce, proof })
    const records = await openRecords(await required(flow, INTAKE_SEED), sealed).catch(() => refuse('records-invalid'))
    decodeRecords(records)
    return { receipts: await store(flow, { [RECORDS]: records }) }
  },
)

/** Agrees to the terms: sessions with every peer, and the signed authorization that the decryptor waits for. */
const join = ecall(
  { input: messages.Joining, output: messages.Joined },
  async ({ flow }, { terms, homomorphicKey }) => {
    const peers = terms.hospitals.filter((hospital) => hospital !== flow.id)
    const members = await membersOf(flow, terms)
    const digest = members.get(terms.decryptor)?.published['homomorphic-key']
    // The aggregator that carries the key could put its own in its place: the roster, signed by the KMS, says which it is.
    if (digest === undefined || Buffer.compare(statements.digestOf(homomorphicKey), digest) !== 0)
      return refuse('key-substituted')
    const sessions = [...peers, terms.decryptor].map(
      (peer) => [sessionWith(peer), agreeWith(flow, members, peer)] as const,
    )
    const authorization = flow.sign(statements.authorizationStatement(flow.task, flow.id, terms, digest))
    const entries: Entries = {
      ...Object.fromEntries(sessions),
      [AUTHORIZATION]: authorization,
      [TERMS]: encodeTerms(terms),
      [HOMOMORPHIC_KEY]: homomorphicKey,
    }
    const joined = await flow.read(TERMS)
    if (joined !== undefined && Buffer.compare(joined, encodeTerms(terms)) !== 0) return refuse('terms-fixed')
    const names = Object.keys(entries) as EntryName[]
    const receipts = joined === undefined ? await store(flow, entries) : await receiptsOf(flow, names)
    const session = await required(flow, sessionWith(terms.decryptor))
    return { authorization: sealMessage(session, { from: flow.id, to: terms.decryptor }, authorization), receipts }
  },
)

/** Takes the interaction id that the decryptor sends in the session. */
const accept = ecall({ input: messages.Admission, output: messages.Receipted }, async ({ flow }, { admission }) => {
  const { decryptor } = await readTerms(flow)
  const session = await required(flow, sessionWith(decryptor))
  const interaction = openMessage(session, { from: decryptor, to: flow.id }, admission)
  if (interaction?.length !== 16) return refuse('admission-invalid')
  const accepted = await flow.read(INTERACTION)
  if (accepted === undefined) return { receipts: await store(flow, { [INTERACTION]: interaction }) }
  return { receipts: await receiptsOf(flow, [INTERACTION]) }
})

/** Contributes to one round, once: a repeat gets the recorded contribution, bit for bit. */
const train = ecall(
  { input: messages.Training, output: messages.Trained },
  async ({ flow }, { round, participants, releases }) => {
    const name = contributionTo(round)
    const recorded = await flow.read(name)
    if (recorded !== undefined) {
      const contribution = await signContribution(flow, round, decodeContribution(recorded))
      // Two sets of masks for one round would let their difference be seen.
      if (contribution.participants.join() !== participants.join()) return refuse('round-fixed')
      return { contribution, receipts: await receiptsOf(flow, [name, ...storedAlong(flow)]) }
    }
    const terms = await readTerms(flow)
    const known = participants.every((participant) => terms.hospitals.includes(participant))
    if (!known || !participants.includes(flow.id) || participants.length < terms.quorum)
      return refuse('participants-invalid')
    const { wholes, entries } = await contributionValues(flow, terms, round, releases)
    const scheme = await loadScheme()
    const peers = await Promise.all(
      participants
        .filter((peer) => peer !== flow.id)
        .map(async (peer) => ({ flow: peer, seed: await required(flow, sessionWith(peer)) })),
    )
    const label = `${String(round)}/${participants.join()}`
    const masked = maskValues(wholes, { flow: flow.id, peers, label, modulus: scheme.modulus })
    const ciphertext = scheme.encrypt(await required(flow, HOMOMORPHIC_KEY), masked)
    const bytes = encodeContribution({ participants, ciphertext })
    const receipts = await store(flow, { ...entries, [name]: { to: 'kms', bytes } })
    return { contribution: await signContribution(flow, round, { participants, ciphertext }), receipts }
  },
)

/** Applies the last releases, predicts for the hospital's own patients, and releases the model. */
const conclude = ecall(
  { input: messages.Conclusion, output: messages.Concluded, ocalls: archive },
  async ({ flow, ocalls }, { releases }) => {
    const terms = await readTerms(flow)
    if (releases.length !== terms.roundCount + 1) return refuse('release-invalid')
    const { model } = await stateAfter(flow, terms, releases)
    const predictions = encodeNumbers(predict(decodeRecords(await required(flow, SCALED_RECORDS)), model))
    const contributed = flow.list().filter((entry) => entry.name.startsWith(CONTRIBUTION_PREFIX))
    const receipts = [
      ...(await store(flow, { [PREDICTIONS]: predictions })),
      // Whatever this instance has not seen yet comes from the KMS in one batch.
      ...(await receiptsOf(
        flow,
        contributed.map((entry) => entry.name),
      )),
    ]
    const sealed = flow.seal('predictions', predictions)
    const { nonce } = await ocalls.archiveChallenge({})
    const proof = provePassword(await required(flow, PASSWORD), SALT, statements.deliveryStatement(nonce, sealed))
    await ocalls.archiveDeliver({ nonce, proof, sealed })
    return { weights: encodeNumbers(model.weights), receipts }
  },
)

const PARTY_IMAGE = 'party'
const DECRYPTOR_IMAGE = 'decryptor'
let rosterOfTask: ReadonlyMap<string, RosterMember> | undefined

/** The members that the terms name, each running the image that it should, as the KMS signed it. */
const membersOf = async (flow: Flow, terms: Terms): Promise<ReadonlyMap<string, RosterMember>> => {
  if (rosterOfTask !== undefined) return rosterOfTask
  const members = new Map((await flow.roster()).map((member) => [member.flow as string, member]))
  const runs = (name: string, image: string): boolean => members.get(name)?.image === image
  const isComplete = terms.hospitals.every((name) => runs(name, PARTY_IMAGE)) && runs(terms.decryptor, DECRYPTOR_IMAGE)
  if (!isComplete) return refuse('peer-unknown')
  rosterOfTask = members
  return members
}

const agreeWith = (flow: Flow, members: ReadonlyMap<string, RosterMember>, peer: string): Uint8Array =>
  flow.agree(members.get(peer)?.published['agreement'] ?? refuse('peer-unknown'), 'federated-learning')

/** The scaling and the model that all releases up to now make, every one of them signed by the decryptor and in order. */
const stateAfter = async (flow: Flow, terms: Terms, releases: readonly Release[]) => {
  const members = await membersOf(flow, terms)
  const key = members.get(terms.decryptor)?.signingKey ?? refuse('peer-unknown')
  const signed = releases.every(
    (release, index) =>
      release.round === index &&
      statements.verifySignature(key, statements.releaseStatement(flow.task, release), release.signature),
  )
  return signed ? replayReleases(releases) : refuse('release-invalid')
}

/** What this hospital adds to the round's sum, and what it must store along with its contribution. */
const contributionValues = async (flow: Flow, terms: Terms, round: number, releases: readonly Release[]) => {
  if (releases.length !== round || round > terms.roundCount) return refuse('release-invalid')
  const records = decodeRecords(await required(flow, RECORDS))
  if (round === STATISTICS_ROUND) return { wholes: quantiseStatistics(statisticsOf(records)), entries: {} }
  const { scaling, model } = await stateAfter(flow, terms, releases)
  const stored = await flow.read(SCALED_RECORDS)
  const scaled: Records = stored === undefined ? standardise(records, scaling) : decodeRecords(stored)
  const before = await flow.read(RESIDUAL)
  const { wholes, residual } = quantiseGradient(
    gradientOf(scaled, model),
    before === undefined ? new Float64Array(WEIGHT_COUNT) : decodeNumbers(before),
  )
  const entries: Entries = { [RESIDUAL]: encodeNumbers(residual) }
  return { wholes, entries: stored === undefined ? { ...entries, [SCALED_RECORDS]: encodeRecords(scaled) } : entries }
}

/** What a contribution's checkpoint holds beside it. */
const storedAlong = (flow: Flow): EntryName[] =>
  flow
    .list()
    .map((entry) => entry.name)
    .filter((name) => name === RESIDUAL || name === SCALED_RECORDS)

const signContribution = async (
  flow: Flow,
  round: number,
  recorded: Pick<Contribution, 'participants' | 'ciphertext'>,
): Promise<Contribution> => {
  const contribution = { flow: flow.id as string, round, ...recorded }
  const interaction = await required(flow, INTERACTION)
  return {
    ...contribution,
    signature: flow.sign(statements.contributionStatement(flow.task, interaction, contribution)),
  }
}

const party = defineEnclave({
  name: PARTY_IMAGE,
  svn: 1,
  ecalls: { enrol, prepare, join, accept, train, conclude },
  ocalls: archive,
  refusals: {
    'not-ready': 'An earlier step is missing',
    'records-invalid': 'The records are not sealed to this enclave',
    'key-substituted': 'The homomorphic key is not the one that the roster names',
    'peer-unknown': 'The roster has no such member, or it runs another image',
    'terms-fixed': 'This hospital has joined on other terms',
    'admission-invalid': 'The admission does not come from the decryptor',
    'participants-invalid': 'These participants are too few, unknown, or without this hospital',
    'round-fixed': 'This round was answered for other participants',
    'release-invalid': 'A release is missing, out of order, or not signed by the decryptor',
  },
})
export default party
export type PartyEnclave = typeof party
