import test from 'ava'
import { Keyring } from '../../kms/keyring.js'
import { parseHeader } from '../../protocol/age-header.js'
import type { Bytes } from '../../protocol/bytes.js'
import { nodeRandom } from '../../protocol/crypto/primitives.js'
import { Secret } from '../../protocol/crypto/secret.js'
import { decodeProofs } from '../../protocol/statements.js'
import { newestKey, openByKms, sealToKms } from './attested-client.js'
import { IMAGE, OTHER_IMAGE, startInProcess } from './in-process.js'

const plaintextOf = (index: number, size = 100): Uint8Array => new Uint8Array(size).fill(index + 1)
const headerOf = (envelope: Bytes): Bytes => envelope.slice(0, parseHeader(envelope).sizeBytes)

const launchOne = async (options: Parameters<typeof startInProcess>[0] = {}) => {
  const kms = await startInProcess(options)
  const client = await kms.connect()
  await client.launch()
  const { encryptionKey } = newestKey(await client.open())
  const seal = (plaintext: Uint8Array, change: Partial<Parameters<typeof sealToKms>[1]> = {}) =>
    sealToKms(plaintext, { encryptionKey, origin: client.origin, image: IMAGE, ...change })
  return { ...kms, client, seal, encryptionKey }
}

test('unwrap gives the file keys back in order, with a status for each', async (t) => {
  const { client, seal } = await launchOne()
  const envelopes = [seal(plaintextOf(0)), new Uint8Array([1, 2, 3]), seal(plaintextOf(2, 70_000))]
  const { reply, secrets, proof } = await client.call({
    op: 'unwrap',
    headers: envelopes.map((envelope, index) => (index === 1 ? envelope : headerOf(envelope))),
  })
  t.deepEqual(reply.items, [
    { key: 'root@1', error: null, sizeBytes: 16 },
    { key: null, error: 'ERR_ENVELOPE_INVALID', sizeBytes: 0 },
    { key: 'root@1', error: null, sizeBytes: 16 },
  ])
  t.is(secrets.length, 32)
  t.deepEqual(await openByKms(client, envelopes[2] ?? new Uint8Array(0)), plaintextOf(2, 70_000))
  t.deepEqual(
    decodeProofs(proof).map(({ key }) => key),
    ['root@1'],
  )
})

test('where nothing opened, nothing is proven', async (t) => {
  const { client } = await launchOne()
  const { reply, secrets, proof } = await client.call({ op: 'unwrap', headers: [new Uint8Array(0)] })
  t.deepEqual(reply.items, [{ key: null, error: 'ERR_ENVELOPE_INVALID', sizeBytes: 0 }])
  t.is(secrets.length, 0)
  t.deepEqual(decodeProofs(proof), [])
})

test('a forged, foreign or swapped envelope is refused by one code, whatever is wrong with it', async (t) => {
  const { client, connect, seal } = await launchOne()
  const otherFlow = await connect()
  await otherFlow.launch('flow-2')
  const otherImage = await connect({ image: OTHER_IMAGE })
  await otherImage.launch('flow-3')
  const stranger = Keyring.create(nodeRandom)
  const good = seal(plaintextOf(0))
  const forged: Readonly<Record<string, Bytes>> = {
    'a host seals to the right recipient, without a tag': seal(plaintextOf(0), { origin: undefined }),
    'a host seals with a tag of its own': seal(plaintextOf(0), {
      origin: { authority: client.origin?.authority ?? IMAGE, key: Secret.random(32, nodeRandom) },
    }),
    'sealed by another flow': seal(plaintextOf(0), { origin: otherFlow.origin, flow: 'flow-2' }),
    'sealed by another flow that claims to be this one': seal(plaintextOf(0), { origin: otherFlow.origin }),
    'sealed by another image': seal(plaintextOf(0), { origin: otherImage.origin, image: OTHER_IMAGE }),
    'this flow’s key over another flow’s context': seal(plaintextOf(0), { flow: 'flow-2' }),
    'this flow’s key over another image’s context': seal(plaintextOf(0), { image: OTHER_IMAGE }),
    'for another KMS': seal(plaintextOf(0), {
      encryptionKey: stranger.rootKeys[0].certificate.encryptionKey,
    }),
  }
  const headers = Object.values(forged).map(headerOf)
  const { reply, secrets } = await client.call({ op: 'unwrap', headers: [...headers, headerOf(good)] })
  Object.keys(forged).forEach((what, index) => {
    t.deepEqual(reply.items[index], { key: null, error: 'ERR_ENVELOPE_INVALID', sizeBytes: 0 }, what)
  })
  t.is(reply.items.at(-1)?.error, null)
  t.is(secrets.length, 16)
})

test('what was sealed before a restart opens after it, from the keyring alone', async (t) => {
  const before = await launchOne()
  const envelope = before.seal(plaintextOf(0))
  const file = before.keyring.seal({ passphrase: Secret.take(new Uint8Array([1])), random: nodeRandom, logN: 10 })
  before.keyring[Symbol.dispose]()
  const keyring = Keyring.open(file, Secret.take(new Uint8Array([1])))
  // Everything else is lost: another disk, another ledger.
  const after = await startInProcess({ keyring, platform: before.platform })
  const client = await after.connect()
  await client.open()
  t.deepEqual(await openByKms(client, envelope), plaintextOf(0))
})
