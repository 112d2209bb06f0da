import { generateKeyPairSync, sign, verify } from 'node:crypto'
import test from 'ava'
import { copyBytes, type Bytes } from '../../protocol/bytes.js'
import { encodeCbor } from '../../protocol/cbor.js'
import { isKeyriseError } from '../../protocol/errors.js'
import { prepareEvidence, readEvidence, type Claims } from '../../protocol/evidence.js'

const { privateKey, publicKey } = generateKeyPairSync('ed25519')
const filled = (value: number): Bytes => new Uint8Array(32).fill(value)

const CLAIMS: Claims = {
  nonce: filled(1),
  confirmationKey: filled(2),
  measurement: filled(3),
  name: 'party',
  svn: 4,
  configDigest: filled(5),
  debug: false,
  signed: { signer: filled(6), productId: 7 },
}

const makeToken = (claims: Claims): Bytes => {
  const { toSign, join } = prepareEvidence(claims)
  return join(sign(null, toSign, privateKey))
}

/** What a verifier does first; undefined when the token is refused. */
const readVerified = (token: Uint8Array): Claims | undefined => {
  try {
    const { toSign, signature, claims } = readEvidence(token)
    return verify(null, toSign, publicKey, signature) ? claims : undefined
  } catch (error) {
    if (isKeyriseError(error, 'ERR_EVIDENCE_REFUSED')) return undefined
    throw error
  }
}

test('a token says what it was made of', (t) => {
  t.deepEqual(readVerified(makeToken(CLAIMS)), CLAIMS)
  for (const other of [{ debug: true }, { signed: null }])
    t.deepEqual(readVerified(makeToken({ ...CLAIMS, ...other })), { ...CLAIMS, ...other })
})

test('a token with any bit changed, or cut anywhere, is refused', (t) => {
  const token = makeToken(CLAIMS)
  for (let bit = 0; bit < token.length * 8; bit++) {
    const changed = copyBytes(token)
    changed[bit >>> 3] = (changed[bit >>> 3] ?? 0) ^ (1 << (bit & 7))
    t.is(readVerified(changed), undefined, `bit ${bit}`)
  }
  for (let size = 0; size < token.length; size++) t.is(readVerified(token.subarray(0, size)), undefined, `size ${size}`)
})

test('claims of the wrong shape are refused, though signed', (t) => {
  const wrong: Partial<Record<keyof Claims, unknown>>[] = [
    { nonce: new Uint8Array(31) },
    { confirmationKey: new Uint8Array(33) },
    { measurement: new Uint8Array(0) },
    { configDigest: new Uint8Array(16) },
    { name: 'x'.repeat(65) },
    { svn: -1 },
    { signed: { signer: new Uint8Array(31), productId: 1 } },
    { signed: { signer: filled(6), productId: 65_536 } },
    { signed: { signer: filled(6), productId: -1 } },
    { signed: { signer: filled(6), productId: 1.5 } },
  ]
  for (const claim of wrong) t.is(readVerified(makeToken({ ...CLAIMS, ...claim } as Claims)), undefined)
})

test('what is no COSE_Sign1 of ours is refused', (t) => {
  for (const claimed of [null, 7, [], {}, [new Uint8Array(3), {}, new Uint8Array(0), new Uint8Array(64)]])
    t.throws(() => readEvidence(encodeCbor(claimed)), { code: 'ERR_EVIDENCE_REFUSED' })
})
