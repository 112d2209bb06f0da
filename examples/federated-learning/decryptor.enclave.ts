import { defineEnclave, ecall, refuse, type EntryName, type Flow, type RosterMember } from 'keyrise/enclave'
import { openMessage, sealMessage } from './channel.js'
import { encodeTerms, randomBytes, readTerms, receiptsOf, required, store, TERMS } from './enclave-entries.js'
import { loadScheme } from './homomorphic.js'
import * as messages from './messages.js'
import { STATISTICS_ROUND, type Contribution, type Release } from './messages.js'
import { GRADIENT_SIZE, STATISTICS_SIZE } from './quantise.js'
import { COMMITMENT_KEY } from './receipts.js'
import { decodeAnswer, encodeAnswer } from './answer.js'
import { encodeSum } from './replay.js'
import * as statements from './statements.js'

/**
 * The only holder of the homomorphic secret key. It decrypts one sum a round, of contributions that at least a quorum of
 * hospitals signed, and records which before anyone sees it: a clone or a second try gets the same answer or none.
 */

const SECRET_KEY: EntryName = 'business-key/homomorphic'
const PUBLIC_KEY: EntryName = 'processed-data/homomorphic-key'
const INTERACTION: EntryName = 'interaction-id/task'
const sessionWith = (hospital: string): EntryName => `session/${hospital}`
const authorizationOf = (hospital: string): EntryName => `authorization/${hospital}`
const answerTo = (round: number): EntryName => `final-result/round-${String(round)}`

/** Makes the homomorphic keys and the interaction id, and publishes the key's digest in the roster. */
const open = ecall({ input: messages.Terms, output: messages.Opened }, async ({ flow }, terms) => {
  const names = [COMMITMENT_KEY, SECRET_KEY, PUBLIC_KEY, INTERACTION, TERMS] as const
  if ((await flow.read(SECRET_KEY)) === undefined) {
    const { publicKey, secretKey } = (await loadScheme()).createKeys()
    await flow.checkpoint({
      [COMMITMENT_KEY]: randomBytes(32),
      [SECRET_KEY]: secretKey,
      [PUBLIC_KEY]: publicKey,
      [INTERACTION]: randomBytes(16),
      [TERMS]: encodeTerms(terms),
    })
  }
  if (Buffer.compare(await required(flow, TERMS), encodeTerms(terms)) !== 0) return refuse('terms-fixed')
  const homomorphicKey = await required(flow, PUBLIC_KEY)
  await flow.publish({ agreement: flow.agreementKey, 'homomorphic-key': statements.digestOf(homomorphicKey) })
  return { homomorphicKey, receipts: await receiptsOf(flow, names) }
})

/** Checks a hospital's authorization and sends it the interaction id, both within their session. */
const admit = ecall(
  { input: messages.Admitting, output: messages.Admitted },
  async ({ flow }, { flow: hospital, authorization }) => {
    const terms = await readTerms(flow)
    const member = await memberOf(flow, hospital)
    if (!terms.hospitals.includes(hospital)) return refuse('peer-unknown')
    const session = flow.agree(member.published['agreement'] ?? refuse('peer-unknown'), 'federated-learning')
    const signature = openMessage(session, { from: hospital, to: flow.id }, authorization)
    const digest = statements.digestOf(await required(flow, PUBLIC_KEY))
    const statement = statements.authorizationStatement(flow.task, hospital, terms, digest)
    if (signature === undefined || !statements.verifySignature(member.signingKey, statement, signature)) {
      return refuse('authorization-invalid')
    }
    const names = [sessionWith(hospital), authorizationOf(hospital)] as const
    const admitted = (await flow.read(authorizationOf(hospital))) !== undefined
    const receipts = admitted
      ? await receiptsOf(flow, names)
      : await store(flow, { [sessionWith(hospital)]: session, [authorizationOf(hospital)]: signature })
    const interaction = await required(flow, INTERACTION)
    return { admission: sealMessage(session, { from: flow.id, to: hospital }, interaction), receipts }
  },
)

/** Decrypts the sum of one round. */
const release = ecall(
  { input: messages.Releasing, output: messages.Released },
  async ({ flow }, { round, sum, contributions }) => {
    const name = answerTo(round)
    const recorded = await flow.read(name)
    if (recorded !== undefined) {
      const { participants, digest, sum: values } = decodeAnswer(recorded)
      // One answer a round: a second sum, over another subset, would give away the difference.
      if (Buffer.compare(digest, digestOfSet(contributions)) !== 0) return refuse('round-answered')
      return {
        release: signRelease(flow, { round, participants, sum: values }),
        receipts: await receiptsOf(flow, [name]),
      }
    }
    const terms = await readTerms(flow)
    if (round > terms.roundCount) return refuse('round-order')
    if (round > STATISTICS_ROUND && (await flow.read(answerTo(round - 1))) === undefined) return refuse('round-order')
    const participants = contributions.map((contribution) => contribution.flow).sort()
    if (new Set(participants).size !== participants.length || participants.length < terms.quorum)
      return refuse('quorum-missing')
    for (const contribution of contributions) await checkContribution(flow, round, participants, contribution)

    // Signed by enclaves of the party's image, so SEAL may load them. The aggregator's sum only counts if it is theirs.
    const scheme = await loadScheme()
    const added = scheme.add(contributions.map(({ ciphertext }) => ciphertext))
    if (Buffer.compare(added, sum) !== 0) return refuse('sum-differs')
    const size = round === STATISTICS_ROUND ? STATISTICS_SIZE : GRADIENT_SIZE
    const values = encodeSum(scheme.decrypt(await required(flow, SECRET_KEY), added, size))
    const answer = { participants, digest: digestOfSet(contributions), sum: values }
    const receipts = await store(flow, { [name]: encodeAnswer(answer) })
    return { release: signRelease(flow, { round, participants, sum: values }), receipts }
  },
)

/** Refuses what is not this round's contribution by an admitted member, for exactly these participants. */
const checkContribution = async (
  flow: Flow,
  round: number,
  participants: readonly string[],
  contribution: Contribution,
): Promise<void> => {
  if ((await flow.read(authorizationOf(contribution.flow))) === undefined) return refuse('authorization-invalid')
  const member = await memberOf(flow, contribution.flow)
  const interaction = await required(flow, INTERACTION)
  const statement = statements.contributionStatement(flow.task, interaction, contribution)
  const signed = statements.verifySignature(member.signingKey, statement, contribution.signature)
  const matches = contribution.round === round && contribution.participants.join() === participants.join()
  if (!signed || !matches) refuse('contribution-invalid')
}

let roster: ReadonlyMap<string, RosterMember> = new Map()

/** The member as the KMS signed it; it must run the party's image. */
const memberOf = async (flow: Flow, hospital: string): Promise<RosterMember> => {
  if (!roster.has(hospital)) roster = new Map((await flow.roster()).map((member) => [member.flow as string, member]))
  const member = roster.get(hospital)
  return member?.image === 'party' ? member : refuse('peer-unknown')
}

const digestOfSet = (contributions: readonly Contribution[]): Uint8Array<ArrayBuffer> => {
  const digests = contributions.map(
    ({ flow, ciphertext }) => `${flow}:${Buffer.from(statements.digestOf(ciphertext)).toString('hex')}`,
  )
  return statements.digestOf(Buffer.from(digests.sort().join('\n')))
}

const signRelease = (flow: Flow, unsigned: Omit<Release, 'signature'>): Release => ({
  ...unsigned,
  signature: flow.sign(statements.releaseStatement(flow.task, unsigned)),
})

const decryptor = defineEnclave({
  name: 'decryptor',
  svn: 1,
  ecalls: { open, admit, release },
  refusals: {
    'not-ready': 'An earlier step is missing',
    'peer-unknown': 'The roster has no such member, or it runs another image',
    'terms-fixed': 'The task has begun on other terms',
    'authorization-invalid': 'The hospital has not authorized this key on these terms',
    'contribution-invalid': 'The contribution is not signed by the hospital for this round and these participants',
    'quorum-missing': 'Too few hospitals contributed, or one twice',
    'sum-differs': 'The sum is not the sum of the signed contributions',
    'round-answered': 'This round was answered for another set of contributions',
    'round-order': 'The round before has no answer yet, or the task has ended',
  },
})
export default decryptor
export type DecryptorEnclave = typeof decryptor
