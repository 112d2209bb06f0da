import { createHash } from 'node:crypto'
import { existsSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import test from 'ava'
import { MemoryFileSystem, SimulatedClock } from '../../faults/index.js'
import { readNitroDocument } from '../../kms/nitro-document.js'
import { NitroVerifier } from '../../kms/nitro-verifier.js'
import { openKms } from '../../kms/open-kms.js'
import { createKms, prepareDirectory } from '../../kms/place.js'
import type { Policy } from '../../kms/policy.js'
import { InlineUnsealer } from '../../kms/unseal.js'
import { asciiBytes, concatBytes, copyBytes, type Bytes } from '../../protocol/bytes.js'
import { nodeRandom } from '../../protocol/crypto/primitives.js'
import { Secret } from '../../protocol/crypto/secret.js'
import { sha256 } from '../../protocol/sha256.js'
import { AttestedClient, digestOf, newestKey, openByKms, sealToKms, TestPlatform } from './attested-client.js'
import { makeChain, makeDocument, NOW_MS, pcr, type DocumentOptions } from './nitro-documents.js'

/** Attestation documents all the way: into a running KMS, whose policy lists their format and their image. */

const chain = makeChain()
const IMAGE = sha256(concatBytes(pcr(1), pcr(2), pcr(3)))
const simulated = new TestPlatform()

/** A security module of the tests’ own, as an enclave asks it. */
const nitro = (fields: DocumentOptions['fields'] = {}) => ({
  attest: ({ nonce, confirmationKey }: { nonce: Bytes; confirmationKey: Bytes }): Bytes =>
    makeDocument({ chain, fields: { nonce, public_key: confirmationKey, ...fields } }),
})

const startWith = async (policy: Partial<Policy>, nowMs = NOW_MS, ownRoot = true) => {
  const fs = new MemoryFileSystem()
  const passphrase = Secret.take(asciiBytes('correct horse'))
  const place = { directory: '/kms' }
  const clock = new SimulatedClock()
  await clock.advance(nowMs)
  await prepareDirectory(fs, place.directory)
  await createKms({ place, passphrase, fs, random: nodeRandom, logN: 10 })
  const [root] = chain
  const rootFingerprint = copyBytes(
    createHash('sha256')
      .update(root?.der ?? '')
      .digest(),
  )
  const kms = await openKms({
    ...{ place, passphrase, fs, clock, random: nodeRandom },
    policy: { platforms: [], images: [{ name: 'party', measurement: IMAGE }], evidence: ['nitro'], ...policy },
    verifiers: ownRoot ? [new NitroVerifier({ clock, rootFingerprint })] : [],
    startUnsealer: (keys) => Promise.resolve(new InlineUnsealer(keys)),
  })
  const connect = (platform: Pick<TestPlatform, 'attest'> = nitro()) =>
    AttestedClient.connect({ kms, kmsIdentity: kms.identity, platform, image: IMAGE })
  return { kms, connect }
}

test('a document opens a session: a first launch seals to the KMS, and a recovery with another document gets it back', async (t) => {
  const { kms, connect } = await startWith({})
  const first = await connect()
  const { encryptionKey } = newestKey(await first.open())
  await first.launch()
  const envelope = sealToKms(digestOf(7), { encryptionKey, origin: first.origin, image: IMAGE })
  const second = await connect()
  await second.open()
  t.is((await second.call({ op: 'claim', head: null, incarnation: 1, adopt: null, stale: false })).reply.incarnation, 2)
  t.deepEqual(await openByKms(second, envelope), digestOf(7))
  await kms.close()
})

for (const [what, fields, policy, nowMs] of [
  ['a debug enclave’s', { pcrs: new Map([0, 1, 2].map((index) => [index, pcr(0)])) }, { allowDebug: true }, NOW_MS],
  ['one without a nonce', { nonce: null }, {}, NOW_MS],
  ['one without a key', { public_key: null }, {}, NOW_MS],
  ['one of another handshake', { nonce: digestOf(9) }, {}, NOW_MS],
  ['one that binds another key', { public_key: digestOf(9) }, {}, NOW_MS],
  ['one of a format that the policy does not list', {}, { evidence: ['simulated'] }, NOW_MS],
  ['one whose chain has expired', {}, {}, NOW_MS + 2 * 3_600_000],
] as const)
  test(`a running KMS refuses a document: ${what}`, async (t) => {
    const { kms, connect } = await startWith(policy, nowMs)
    await t.throwsAsync(connect(nitro(fields)), { code: 'ERR_EVIDENCE_REFUSED' })
    await kms.close()
  })

test('a document by a chain to another root than AWS’s is refused, unless the KMS is given a verifier of its own', async (t) => {
  const { kms, connect } = await startWith({}, NOW_MS, false)
  await t.throwsAsync(connect(), { code: 'ERR_EVIDENCE_REFUSED' })
  await kms.close()
})

test('a document of an image that the policy does not list gets nothing', async (t) => {
  const { kms, connect } = await startWith({ images: [] })
  await t.throwsAsync(connect(), { code: 'ERR_POLICY_DENIED' })
  await kms.close()
})

test('one KMS takes evidence of both formats, each by its own verifier, where its policy lists both', async (t) => {
  const { kms, connect } = await startWith({ evidence: ['simulated', 'nitro'], platforms: [simulated.publicKey] })
  await t.notThrowsAsync(connect())
  await t.notThrowsAsync(connect(simulated))
  await t.throwsAsync(connect(new TestPlatform()), { code: 'ERR_EVIDENCE_REFUSED' })
  await t.throwsAsync(connect({ attest: () => digestOf(1) }), { code: 'ERR_EVIDENCE_REFUSED' })
  await kms.close()
})

test('a policy that lists a format twice, or one that the KMS has no verifier of, starts no KMS', async (t) => {
  await t.throwsAsync(startWith({ evidence: ['nitro', 'nitro'] }), {
    code: 'ERR_CONFIG_INVALID',
    message: /evidence\[1\]/,
  })
  await t.throwsAsync(startWith({ evidence: ['sgx'] }), { code: 'ERR_CONFIG_INVALID', message: /no verifier of sgx/ })
})

const VECTORS = fileURLToPath(new URL('../../../../shared/vectors/nitro/', import.meta.url))
const withVectors = existsSync(VECTORS) ? test : test.skip

withVectors(
  'both documents that AWS made lack a nonce or a key, and a running KMS refuses them at their own time',
  async (t) => {
    for (const name of ['attestation-document.cbor', 'attestation-document-debug.cbor']) {
      const document = copyBytes(readFileSync(`${VECTORS}${name}`))
      const { nonce, publicKey, timestampMs } = readNitroDocument(document)
      t.true(nonce === undefined || publicKey === undefined, name)
      const { kms, connect } = await startWith({}, timestampMs, false)
      await t.throwsAsync(connect({ attest: () => document }), { code: 'ERR_EVIDENCE_REFUSED' }, name)
      await kms.close()
    }
  },
)
