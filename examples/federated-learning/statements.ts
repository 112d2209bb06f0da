import { createHash, createPublicKey, verify } from 'node:crypto'
import type { Contribution, Release, Terms } from './messages.js'

/** What is signed: each statement says what it is and gives every part its length, so that none reads as another. */

const statement = (label: string, ...parts: readonly (string | number | Uint8Array)[]): Uint8Array<ArrayBuffer> => {
  const hash = createHash('sha256')
  for (const part of [`federated-learning/${label}`, ...parts]) {
    const bytes = part instanceof Uint8Array ? part : Buffer.from(String(part))
    hash.update(`${String(bytes.length)}:`).update(bytes)
  }
  return new Uint8Array(hash.digest())
}

export const digestOf = (bytes: Uint8Array): Uint8Array<ArrayBuffer> =>
  new Uint8Array(createHash('sha256').update(bytes).digest())

/** A hospital's word that the holder of one homomorphic key may decrypt sums, and on which terms. */
export const authorizationStatement = (task: string, flow: string, terms: Terms, homomorphicKeyDigest: Uint8Array) =>
  statement(
    'authorization',
    task,
    flow,
    terms.decryptor,
    terms.hospitals.join(),
    terms.quorum,
    terms.roundCount,
    homomorphicKeyDigest,
  )

/** @param interaction - the secret id of this task: a contribution to another one, of the same names, does not verify. */
export const contributionStatement = (
  task: string,
  interaction: Uint8Array,
  contribution: Omit<Contribution, 'signature'>,
) => {
  const { flow, round, participants, ciphertext } = contribution
  return statement('contribution', task, interaction, flow, round, participants.join(), digestOf(ciphertext))
}

export const releaseStatement = (task: string, { round, participants, sum }: Omit<Release, 'signature'>) =>
  statement('release', task, round, participants.join(), sum)

/** What a login to the archive proves: that the records may be read, or that this result may be left there. Works once, by its nonce. */
export const readingStatement = (nonce: Uint8Array) => statement('archive-reading', nonce)
export const deliveryStatement = (nonce: Uint8Array, sealed: Uint8Array) =>
  statement('archive-delivery', nonce, digestOf(sealed))

/** @param publicKey - Ed25519, 32 bytes, from the roster. */
export const verifySignature = (publicKey: Uint8Array, message: Uint8Array, signature: Uint8Array): boolean => {
  const x = Buffer.from(publicKey).toString('base64url')
  return verify(null, message, createPublicKey({ key: { kty: 'OKP', crv: 'Ed25519', x }, format: 'jwk' }), signature)
}
