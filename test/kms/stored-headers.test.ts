import test from 'ava'
import { parseHeader } from '../../protocol/age-header.js'
import { copyBytes, type Bytes } from '../../protocol/bytes.js'
import { openReceipt } from '../../protocol/crypto/receipts.js'
import { sha256 } from '../../protocol/crypto/primitives.js'
import { KeyriseError } from '../../protocol/errors.js'
import { HEADER_SIZE_BYTES_MAX, STORED_HEADER_COUNT_MAX } from '../../protocol/limits.js'
import { parseStoreId } from '../../protocol/names.js'
import { headerName, payloadName, putPair } from '../../protocol/sealed-pair.js'
import { decodeProofs } from '../../protocol/statements.js'
import { MemoryStore } from '../../storage/index.js'
import { digestOf, newestKey, sealToKms } from './attested-client.js'
import { IMAGE, startInProcess } from './in-process.js'

// M13: the second environment gives the ciphertext to the KMS, and no host carries it.

class PartyStore extends MemoryStore {
  readonly names: string[] = []
  failure: KeyriseError | undefined

  override async read(name: string, offset: number, sizeBytes: number): Promise<Bytes | undefined> {
    this.names.push(name)
    if (this.failure !== undefined) throw this.failure
    return super.read(name, offset, sizeBytes)
  }
}

const headerOf = (envelope: Bytes): Bytes => copyBytes(envelope.subarray(0, parseHeader(envelope).sizeBytes))
const party = parseStoreId('party')
const PAIR = 'flow-1/root-0000000001'
const NAME = headerName(PAIR, 1)
const LACKING = { key: null, error: 'ERR_STATE_LOST', sizeBytes: 0 }
const OPEN = { key: 'root@1', error: null, sizeBytes: 16 }

const start = async () => {
  const store = new PartyStore()
  const kms = await startInProcess({ stores: new Map([[party, store]]) })
  const client = await kms.connect()
  await client.launch()
  const { encryptionKey } = newestKey(await client.open())
  const seal = (byte: number, change: Partial<Parameters<typeof sealToKms>[1]> = {}) =>
    sealToKms(digestOf(byte), { encryptionKey, origin: client.origin, image: IMAGE, ...change })
  const put = async (pair: string, envelope: Bytes) => {
    await putPair(store, pair, envelope)
    return { name: headerName(pair, 1), digest: sha256(headerOf(envelope)) }
  }
  return { ...kms, store, client, seal, put }
}

test('M13: a header out of a registered store opens as one that the host relays: the same keys, proof and receipt', async (t) => {
  const { keyring, client, seal, put } = await start()
  const envelopes = [seal(1), seal(2)]
  const headers = [await put(PAIR, envelopes[0] as Bytes), await put('flow-1/direct-1', envelopes[1] as Bytes)]
  const straight = await client.call({ op: 'unwrap-stored', store: party, headers })
  const relayed = await client.call({ op: 'unwrap', headers: envelopes.map(headerOf) })
  t.deepEqual(straight.secrets, relayed.secrets)
  t.is(straight.secrets.length, 32)
  t.deepEqual(straight.reply.items, relayed.reply.items)
  t.deepEqual(straight.reply.items, [OPEN, OPEN])
  t.deepEqual(
    decodeProofs(straight.proof).map(({ key }) => key),
    ['root@1'],
  )
  const [of, ofRelayed] = [straight, relayed].map(({ reply }) => openReceipt(keyring.identity, reply.receipt))
  const { kind, openedCount, openedDigest } = of ?? {}
  t.like(ofRelayed, { kind, openedCount, openedDigest })
  t.like(of, { kind: 'unwrap', openedCount: 2, requestDigest: sha256(straight.request) })
})

test('what a registered store lacks, or has other bytes of, is said item by item, and nothing is told of it', async (t) => {
  const { client, seal, put, store, keyring } = await start()
  const right = await put(PAIR, seal(1))
  const other = await put('flow-1/direct-1', seal(2))
  const absent = { ...right, name: headerName('flow-1/direct-2', 1) }
  const long = { name: headerName('flow-1/direct-3', 1), digest: sha256(new Uint8Array(HEADER_SIZE_BYTES_MAX + 2)) }
  await store.put(long.name, new Uint8Array(HEADER_SIZE_BYTES_MAX + 2))
  const headers = [{ ...other, digest: right.digest }, absent, long, right]
  const { reply, secrets } = await client.call({ op: 'unwrap-stored', store: party, headers })
  t.deepEqual(reply.items, [LACKING, LACKING, LACKING, OPEN])
  t.is(secrets.length, 16)
  t.like(openReceipt(keyring.identity, reply.receipt), { itemCount: 1, openedCount: 1 })
})

test('a header in a registered store is checked as any other', async (t) => {
  const { client, seal, put } = await start()
  const headers = [
    await put(PAIR, seal(1, { flow: 'flow-2' })),
    await put('flow-1/direct-1', seal(1, { origin: undefined })),
  ]
  const { reply, secrets } = await client.call({ op: 'unwrap-stored', store: party, headers })
  t.deepEqual(
    reply.items.map(({ error }) => error),
    ['ERR_ENVELOPE_INVALID', 'ERR_ENVELOPE_INVALID'],
  )
  t.is(secrets.length, 0)
})

test('an enclave refers to headers of its own flow, in stores that are registered, and to nothing else', async (t) => {
  const { client, connect, seal, put, store } = await start()
  const { digest } = await put(PAIR, seal(1))
  const ask = (name: string, id = 'party') =>
    client.call({ op: 'unwrap-stored', store: parseStoreId(id), headers: [{ name, digest }] })
  for (const name of [
    'flow-2/root-0000000001.header-0000000001',
    'flow-1',
    payloadName(PAIR),
    'flow-1/notes',
    'flow-10/x',
  ])
    await t.throwsAsync(ask(name), { code: 'ERR_REQUEST_INVALID' }, name)
  for (const name of ['../kms/keyring.age', '/etc/passwd', 'flow-1/../kms/x.header-0000000001'])
    await t.throwsAsync(ask(name), { code: 'ERR_NAME_INVALID' }, name)
  await t.throwsAsync(ask(NAME, 'other'), { code: 'ERR_STORE_UNKNOWN' })
  const headers = Array.from({ length: STORED_HEADER_COUNT_MAX + 1 }, () => ({ name: NAME, digest }))
  const tooMany = client.call({ op: 'unwrap-stored', store: party, headers })
  await t.throwsAsync(tooMany, { code: 'ERR_REQUEST_INVALID' })
  const early = await connect()
  const unopened = early.call({ op: 'unwrap-stored', store: party, headers: headers.slice(1) })
  await t.throwsAsync(unopened, { code: 'ERR_REQUEST_INVALID' })
  t.deepEqual(store.names, [])
})

test('a registered store that fails has nothing, and the operator hears why', async (t) => {
  const { client, seal, put, store, events } = await start()
  const header = await put(PAIR, seal(1))
  store.failure = new KeyriseError('ERR_STORE_IO')
  const { reply } = await client.call({ op: 'unwrap-stored', store: party, headers: [header] })
  t.deepEqual(reply.items, [LACKING])
  t.like(
    events.find(({ event }) => event === 'failed'),
    { code: 'ERR_STORE_IO', flow: 'flow-1' },
  )
})
