import type { PlantedFault } from '../fault.js'

const ENVELOPE = { file: 'protocol/crypto/envelope.ts', test: 'crypto/envelope.test' }
const VERIFIER = { file: 'kms/verifier.ts', test: 'kms/handshake.test' }
const IMAGE = { file: 'platform/image-signature.ts', test: 'platform/image-signature.test' }
const CLIENT = { file: 'enclave/kms-client.ts', test: 'enclave/flow-kms.test' }

const bound = (field: string): PlantedFault => ({
  ...ENVELOPE,
  name: `the context’s ${field} is not compared`,
  find: '(Object.keys(expected) as (keyof EnvelopeContext)[]).every(',
  put: `(Object.keys(expected) as (keyof EnvelopeContext)[]).filter((field) => field !== '${field}').every(`,
})

/** Who made it, and for whom: origins, contexts, signatures, evidence. */
export const AUTHENTICITY: readonly PlantedFault[] = [
  {
    ...ENVELOPE,
    name: 'the origin tag is not verified',
    file: 'protocol/crypto/origin.ts',
    find: "if (!equalSecret(tag, expected)) throw new KeyriseError('ERR_ORIGIN_INVALID')",
    put: '',
  },
  {
    ...ENVELOPE,
    name: 'the origin tag does not cover the context',
    file: 'protocol/crypto/origin.ts',
    find: "labelled('origin', contextBody, commitment)",
    put: "labelled('origin', commitment)",
  },
  {
    ...ENVELOPE,
    name: 'the origin tag does not cover the file key',
    file: 'protocol/crypto/origin.ts',
    find: "labelled('origin', contextBody, commitment)",
    put: "labelled('origin', contextBody)",
  },
  ...['flow', 'task', 'kind', 'name', 'epoch', 'incarnation', 'image'].map(bound),
  {
    name: 'the KMS’s signature over a handshake is not verified',
    file: 'protocol/crypto/session.ts',
    find: '!verifyEd25519(kmsIdentity, transcript, reply.signature)',
    put: 'false',
    test: 'crypto/session.test',
  },
  {
    name: 'evidence does not bind the session’s encapsulation',
    file: 'protocol/crypto/session.ts',
    find: "labelled('evidence-nonce', nonce, kmsKey, encapsulated)",
    put: "labelled('evidence-nonce', nonce, kmsKey)",
    test: 'crypto/session.test',
  },
  {
    ...CLIENT,
    name: 'certificates of root keys are not verified',
    find: '!verifyEd25519(this.#kmsIdentity, body, signature)',
    put: 'false',
  },
  {
    ...CLIENT,
    name: 'the KMS’s acknowledgements are not verified',
    find: '!verifyEd25519(this.#kmsIdentity, encodeAcknowledgement(this.#flow, acknowledged), signature)',
    put: 'false',
    test: 'enclave/recovery-ledger.test',
  },
  { ...CLIENT, name: 'proofs by root keys are not verified', find: 'proved !== true', put: 'false' },
  {
    name: 'a roster’s signature is not verified',
    file: 'enclave/roster.ts',
    find: '!verifyEd25519(kmsIdentity, roster, signature)',
    put: 'false',
    test: 'enclave/flow-kms.test',
  },
  {
    name: 'a roster of another task is believed',
    file: 'enclave/roster.ts',
    find: 'claimed.task !== task',
    put: 'false',
    test: 'enclave/flow-kms.test',
  },
  {
    ...VERIFIER,
    name: 'the signature of evidence is not verified',
    find: '!this.#platforms.some((key) => verifyEd25519(key, toSign, signature))',
    put: 'false',
  },
  {
    ...VERIFIER,
    name: 'evidence may be of another handshake',
    find: '!equalPublicBytes(claims.nonce, expected.nonce)',
    put: 'false',
  },
  {
    ...VERIFIER,
    name: 'evidence may bind another key',
    find: '!equalPublicBytes(claims.confirmationKey, expected.confirmationKey)',
    put: 'false',
  },
  {
    ...IMAGE,
    name: 'an image’s signature is not verified',
    find: "!isVerified(toSign, createPublicKey({ key: jwk, format: 'jwk' }), signature)",
    put: 'false',
  },
  {
    ...IMAGE,
    name: 'another image’s signature is taken',
    find: '!equalPublicBytes(claims.measurement, measurement)',
    put: 'false',
  },
]
