import { createHash } from 'node:crypto'
import { existsSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { KeyUsageFlags } from '@peculiar/asn1-x509'
import test from 'ava'
import { isKeyriseError } from '../../protocol/errors.js'
import { sha256 } from '../../protocol/sha256.js'
import { allocate, concatBytes, copyBytes } from '../../protocol/bytes.js'
import { readNitroDocument } from '../../kms/nitro-document.js'
import { NITRO_ROOT_FINGERPRINT, NitroVerifier } from '../../kms/nitro-verifier.js'
import {
  certify,
  makeChain,
  makeDocument,
  NOW_MS,
  pcr,
  type Authority,
  type CertificateOptions,
} from './nitro-documents.js'

const EXPECTED = { nonce: allocate(32).fill(1), confirmationKey: allocate(32).fill(2) }
const chain = makeChain()
const fingerprintOf = ({ der }: Authority) => copyBytes(createHash('sha256').update(der).digest())

const verifierOf = ([root]: readonly Authority[], nowMs = NOW_MS) =>
  new NitroVerifier({ clock: { nowMs: () => nowMs }, rootFingerprint: fingerprintOf(root as Authority) })

/** Why it was refused; undefined where it was not. */
const refusalOf = async (document: Uint8Array, verifier = verifierOf(chain)): Promise<string | undefined> => {
  try {
    await verifier.appraise(document, EXPECTED)
    return undefined
  } catch (error) {
    if (!isKeyriseError(error, 'ERR_EVIDENCE_REFUSED')) throw error
    return error.message
  }
}

test('a document bound to the handshake, by a chain to the root, gives its claims', async (t) => {
  for (const isTagged of [false, true]) {
    const claims = await verifierOf(chain).appraise(makeDocument({ chain, isTagged }), EXPECTED)
    t.deepEqual(claims, {
      nonce: EXPECTED.nonce,
      confirmationKey: EXPECTED.confirmationKey,
      measurement: sha256(concatBytes(pcr(1), pcr(2), pcr(3))),
      debug: false,
      signed: null,
      name: 'party',
      svn: 3,
      configDigest: allocate(32).fill(4),
    })
  }
})

for (const [what, fields, expected] of [
  ['no nonce', { nonce: null }, /bound to no handshake/],
  ['no key', { public_key: null }, /bound to no handshake/],
  ['another nonce', { nonce: allocate(32) }, /another handshake/],
  ['a longer nonce', { nonce: allocate(33).fill(1) }, /another handshake/],
  ['another key', { public_key: allocate(32) }, /another key/],
  ['PCRs of a debug enclave', { pcrs: new Map([0, 1, 2].map((index) => [index, pcr(0)])) }, /debug/],
  ['no PCR2', { pcrs: new Map([0, 1].map((index) => [index, pcr(1)])) }, /PCR2/],
  ['a short PCR', { pcrs: new Map([[0, allocate(32)]]) }, /pcrs/],
  ['PCRs by name', { pcrs: new Map([['0', pcr(1)]]) }, /pcrs/],
  ['no user data', { user_data: null }, /refused the evidence/],
  ['user data that is something else', { user_data: allocate(5) }, /user_data/],
  ['another digest', { digest: 'SHA256' }, /digest/],
  ['a field that is unknown', { more: 1 }, /unknown field/],
  ['a time that is none', { timestamp: -1 }, /timestamp/],
  ['a nonce that is too long', { nonce: allocate(513) }, /nonce/],
  ['no chain', { cabundle: [] }, /length/],
  ['nine certificates', { cabundle: Array.from({ length: 9 }, () => allocate(1)) }, /cabundle/],
  ['a chain of no certificates', { cabundle: [allocate(10)] }, /root/],
] as const)
  test(`refused: ${what}`, async (t) => {
    t.regex((await refusalOf(makeDocument({ chain, fields }))) ?? 'nothing', expected)
  })

/** A chain whose certificate at `index` is otherwise, and those behind it are by it. */
const chainWith = (index: number, options: CertificateOptions): Authority[] => {
  const plans: CertificateOptions[] = [
    { name: 'root' },
    { name: 'region', pathLengthMax: 1 },
    { name: 'instance', pathLengthMax: 0 },
    { name: 'module', isCa: false },
  ]
  const made: Authority[] = []
  for (const [place, plan] of plans.entries())
    made.push(certify(made.at(-1), place === index ? { ...plan, ...options } : plan))
  return made
}

for (const [what, index, options, expected] of [
  ['a root that has expired', 0, { toMs: NOW_MS - 1000 }, /expired/],
  ['an authority that has expired', 1, { toMs: NOW_MS - 1000 }, /expired/],
  ['a module’s certificate that has expired', 3, { toMs: NOW_MS - 1000 }, /expired/],
  ['an authority of tomorrow', 2, { fromMs: NOW_MS + 60_000 }, /not valid yet/],
  ['an authority that is none', 2, { isCa: false, usage: KeyUsageFlags.keyCertSign }, /no authority/],
  [
    'an authority that may not sign certificates',
    1,
    { usage: KeyUsageFlags.digitalSignature },
    /not by the one before/,
  ],
  ['a chain longer than the region allows', 1, { pathLengthMax: 0 }, /longer/],
  ['a module that is an authority', 3, { isCa: true, usage: KeyUsageFlags.digitalSignature }, /something else/],
  ['a module’s key for something else', 3, { usage: KeyUsageFlags.keyEncipherment }, /something else/],
  ['an issuer by another name', 2, { issuerName: 'another' }, /not by the one before/],
  ['a critical extension that nobody knows', 2, { critical: true }, /critical/],
  ['a weaker signature', 2, { isWeak: true }, /algorithm/],
] as const)
  test(`refused: ${what}`, async (t) => {
    const wrong = chainWith(index, options)
    t.regex((await refusalOf(makeDocument({ chain: wrong }), verifierOf(wrong))) ?? 'nothing', expected)
  })

test('an extension that is not critical may be unknown', async (t) => {
  const other = chainWith(2, { critical: false })
  t.is(await refusalOf(makeDocument({ chain: other }), verifierOf(other)), undefined)
})

test('refused: an authority of the same name with another key', async (t) => {
  const [root, region, , module] = chain as [Authority, Authority, Authority, Authority]
  const stranger = certify(undefined, { name: 'instance', issuerName: 'region', pathLengthMax: 0 })
  t.regex((await refusalOf(makeDocument({ chain: [root, region, stranger, module] }))) ?? '', /signature/)
})

test('refused: a sound chain to another root', async (t) => {
  t.regex((await refusalOf(makeDocument({ chain: makeChain() }))) ?? '', /another root/)
})

test('refused: another algorithm, and what stands in an unprotected header', async (t) => {
  t.regex((await refusalOf(makeDocument({ chain, algorithm: -7 }))) ?? '', /algorithm/)
  t.regex((await refusalOf(makeDocument({ chain, unprotected: new Map([[1, -35]]) }))) ?? '', /unprotected/)
})

test('no bit of a document can be changed, and no part cut off', async (t) => {
  const document = makeDocument({ chain })
  for (let index = 0; index < document.length; index += 3) {
    const changed = copyBytes(document)
    changed[index] = (changed[index] as number) ^ (1 << (index % 8))
    t.not(await refusalOf(changed), undefined, `byte ${index}`)
  }
  for (const size of [0, 1, 10, document.length - 1]) t.not(await refusalOf(document.subarray(0, size)), undefined)
  t.not(await refusalOf(concatBytes(document, allocate(1))), undefined)
  t.regex((await refusalOf(allocate(33 * 1024))) ?? '', /size/)
})

const VECTORS = fileURLToPath(new URL('../../../../shared/vectors/nitro/', import.meta.url))
const withVectors = existsSync(VECTORS) ? test : test.skip

withVectors(
  'two documents that AWS made: their signatures hold in their time, and neither serves a recovery',
  async (t) => {
    for (const [name, expected] of [
      ['attestation-document.cbor', /no handshake/],
      ['attestation-document-debug.cbor', /debug/],
    ] as const) {
      const document = copyBytes(readFileSync(`${VECTORS}${name}`))
      const { timestampMs, moduleId } = readNitroDocument(document)
      const at = (nowMs: number) => new NitroVerifier({ clock: { nowMs: () => nowMs } })
      t.is((await at(timestampMs).authenticate(document)).moduleId, moduleId)
      t.regex((await refusalOf(document, at(timestampMs))) ?? '', expected)
      t.regex((await refusalOf(document, at(Date.now()))) ?? '', /expired/)
      await t.throwsAsync(at(timestampMs - 86_400_000).authenticate(document), { message: /not valid yet/ })
      const forged = copyBytes(document)
      forged[forged.length - 1] = (forged[forged.length - 1] as number) ^ 1
      await t.throwsAsync(at(timestampMs).authenticate(forged), { message: /signature/ })
    }
    t.is(NITRO_ROOT_FINGERPRINT.length, 32)
  },
)
