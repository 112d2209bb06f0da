import test, { type ExecutionContext } from 'ava'
import { aroundStore, MemoryFileSystem } from '../../faults/index.js'
import { Keyring } from '../../kms/keyring.js'
import { rewrapPairs, type RewrappedPair } from '../../kms/rewrap.js'
import { copyBytes, concatBytes, type Bytes } from '../../protocol/bytes.js'
import type { EnvelopeContext } from '../../protocol/context.js'
import { envelopeDigest, openEnvelope, sealEnvelope, unwrapHeader, wrapHeader } from '../../protocol/crypto/envelope.js'
import { contextStanza } from '../../protocol/crypto/origin.js'
import { nodeRandom } from '../../protocol/crypto/primitives.js'
import { x25519Identity, x25519Recipient, type Identity } from '../../protocol/crypto/recipients.js'
import { parseHeader } from '../../protocol/age-header.js'
import { parseFlowId } from '../../protocol/names.js'
import type { FileSystem, OpenFile, Store } from '../../protocol/ports.js'
import { getHeaders, headerName, pairsAmong, payloadName, putPair } from '../../protocol/sealed-pair.js'
import { DirectoryStore, MemoryStore } from '../../storage/index.js'
import { digestOf } from './attested-client.js'

const rotated = (): Keyring => {
  const keyring = Keyring.create(nodeRandom)
  keyring.rotate(nodeRandom)
  return keyring
}
const identitiesOf = (keyring: Keyring): Identity[] =>
  keyring.rootKeys.map(({ privateKey }) => x25519Identity(privateKey))
const recipientOf = (keyring: Keyring, version: number) => {
  const key = keyring.rootKeys.find((known) => known.key === `root@${String(version)}`)
  return x25519Recipient(key?.certificate.encryptionKey ?? new Uint8Array(32))
}
const contextOf = (name: string): EnvelopeContext => ({
  flow: parseFlowId('f'),
  task: parseFlowId('t'),
  kind: 'processed-data',
  name: `processed-data/${name}`,
  epoch: 2,
  incarnation: 1,
  image: digestOf(1),
})
const plaintextOf = (name: string, size = 0): Bytes => copyBytes(new TextEncoder().encode(name.padEnd(size, '.')))
const seal = (name: string, recipients: ReturnType<typeof x25519Recipient>[], size?: number): Bytes =>
  sealEnvelope(plaintextOf(name, size), { recipients, context: contextOf(name), random: nodeRandom })

/** Pairs sealed to the older root key, under names within flow `f`. */
const fill = async (store: Store, keyring: Keyring, names: readonly string[], size?: number) => {
  const digests = new Map<string, string>()
  for (const name of names) {
    const envelope = seal(name, [recipientOf(keyring, 1)], size)
    await putPair(store, `f/${name}`, envelope)
    digests.set(name, envelopeDigest(envelope).join())
  }
  return digests
}

const rewrap = async (store: Store, keyring: Keyring, prefix = '', signal?: AbortSignal): Promise<RewrappedPair[]> => {
  const all: RewrappedPair[] = []
  const options = { keyring, store, prefix, random: nodeRandom, ...(signal === undefined ? {} : { signal }) }
  for await (const one of rewrapPairs(options)) all.push(one)
  return all
}
const summary = (all: readonly RewrappedPair[]): string[] =>
  all.map((one) => `${one.name} ${one.status === 'failed' ? one.error.code : one.status}`)

/** The plaintext that the newest header which opens gives, as a reader finds it. */
const read = async (store: Store, name: string, identities: readonly Identity[]): Promise<string | undefined> => {
  const payload = await store.get(payloadName(name))
  for (const { bytes } of await getHeaders(store, name)) {
    try {
      return new TextDecoder().decode(
        openEnvelope(concatBytes(bytes, payload ?? new Uint8Array(0)), { identities }).plaintext,
      )
    } catch {
      // An older one may.
    }
  }
  return undefined
}
const generations = async (store: Store, name: string): Promise<readonly number[]> =>
  pairsAmong(await store.list(name)).get(name)?.generations ?? []

const NAMES = ['a', 'b', 'c', 'd']

/** All open with the newest root key alone, with one header each, and are what they were. */
const assertDone = async (
  t: ExecutionContext,
  store: Store,
  keyring: Keyring,
  digests: ReadonlyMap<string, string>,
) => {
  for (const [name, digest] of digests) {
    t.is(await read(store, `f/${name}`, identitiesOf(keyring).slice(0, 1)), name)
    t.is((await generations(store, `f/${name}`)).length, 1)
    const [header] = await getHeaders(store, `f/${name}`)
    const payload = (await store.get(payloadName(`f/${name}`))) ?? new Uint8Array(0)
    t.is(envelopeDigest(concatBytes(header?.bytes ?? payload, payload)).join(), digest)
  }
}

test('every pair is rewrapped for the newest key alone, its digest is kept, and a second run finds nothing to do', async (t) => {
  const [store, keyring] = [new MemoryStore(), rotated()]
  const digests = await fill(store, keyring, NAMES)
  const payloads = await Promise.all(NAMES.map((name) => store.get(payloadName(`f/${name}`))))
  t.deepEqual(
    summary(await rewrap(store, keyring)),
    NAMES.map((name) => `f/${name} rewrapped`),
  )
  await assertDone(t, store, keyring, digests)
  t.deepEqual(await Promise.all(NAMES.map((name) => store.get(payloadName(`f/${name}`)))), payloads)
  const before = await store.list('')
  t.deepEqual(
    summary(await rewrap(store, keyring)),
    NAMES.map((name) => `f/${name} current`),
  )
  t.deepEqual(await store.list(''), before)
})

test('a header that others open too is rewrapped for the newest key alone', async (t) => {
  const [store, keyring] = [new MemoryStore(), rotated()]
  await putPair(store, 'f/a', seal('a', [recipientOf(keyring, 2), recipientOf(keyring, 1)]))
  t.deepEqual(summary(await rewrap(store, keyring)), ['f/a rewrapped'])
  t.is(await read(store, 'f/a', identitiesOf(keyring).slice(1)), undefined)
  t.is(await read(store, 'f/a', identitiesOf(keyring).slice(0, 1)), 'a')
})

class Crash extends Error {}

test('a crash before or after any operation leaves every pair readable, and the next run finishes', async (t) => {
  let crashes = 0
  for (let moment = 0; ; moment++) {
    const [inner, keyring] = [new MemoryStore(), rotated()]
    const digests = await fill(inner, keyring, NAMES)
    let count = 0
    const die = (): void => {
      if (count++ >= moment) throw new Crash()
    }
    const store = aroundStore(inner, async (_call, work) => {
      die()
      const answer = await work()
      die()
      return answer
    })
    await rewrap(store, keyring).catch(() => undefined)
    if (count <= moment) break
    crashes++
    for (const name of NAMES) t.is(await read(inner, `f/${name}`, identitiesOf(keyring)), name, String(moment))
    t.true((await rewrap(inner, keyring)).every(({ status }) => status !== 'failed'))
    await assertDone(t, inner, keyring, digests)
  }
  t.true(crashes > 40)
})

test('a power cut at any operation of the disk leaves every pair readable, and the next run finishes', async (t) => {
  const keyring = rotated()
  const survivors = [() => false, () => true, (index: number) => index % 2 === 0] as const
  for (let step = 0; ; step++) {
    let stopAt = Infinity
    const disk = new MemoryFileSystem(({ index }) => (index >= stopAt ? 'stop-before' : undefined))
    await disk.makeDirectory('/')
    const digests = await fill(new DirectoryStore('/sealed', disk), keyring, ['a', 'b'])
    stopAt = disk.operationCount + step
    await rewrap(new DirectoryStore('/sealed', disk), keyring).catch(() => undefined)
    const isDone = disk.operationCount < stopAt
    stopAt = Infinity
    disk.restart(survivors[step % survivors.length])
    const store = new DirectoryStore('/sealed', disk)
    for (const name of digests.keys()) t.is(await read(store, `f/${name}`, identitiesOf(keyring)), name, String(step))
    t.true((await rewrap(store, keyring)).every(({ status }) => status !== 'failed'))
    await assertDone(t, store, keyring, digests)
    if (isDone) {
      t.true(step > 40)
      return
    }
  }
})

const flipped = (bytes: Uint8Array, at: number): Uint8Array =>
  bytes.map((byte, index) => (index === at ? byte ^ 1 : byte))

/** Another digit of base64: a flipped bit could make it none. */
const relettered = (at: number) => (byte: number, index: number) =>
  index === at ? (byte === 0x41 ? 0x42 : 0x41) : byte

test('what is damaged, halved or foreign is reported and left alone, and the others are done', async (t) => {
  const [store, keyring] = [new MemoryStore(), rotated()]
  const digests = await fill(store, keyring, ['good', 'mac', 'form', 'payload', 'swapped', 'headless', 'bare'])
  const change = async (name: string, make: (bytes: Uint8Array) => Uint8Array): Promise<void> => {
    const bytes = (await store.get(name)) ?? new Uint8Array(0)
    await store.delete(name)
    await store.put(name, make(bytes))
  }
  const good = (await store.get(headerName('f/good', 1))) ?? new Uint8Array(0)
  await change(headerName('f/mac', 1), (bytes) => bytes.map(relettered(bytes.length - 10)))
  await change(headerName('f/form', 1), (bytes) => flipped(bytes, 3))
  await change(payloadName('f/payload'), (bytes) => flipped(bytes, 20))
  await change(headerName('f/swapped', 1), () => good)
  await store.delete(headerName('f/headless', 1))
  await store.delete(payloadName('f/bare'))
  using foreign = Keyring.create(nodeRandom)
  await putPair(store, 'f/foreign', seal('foreign', [recipientOf(foreign, 1)]))
  await store.put('f/epoch.age', new Uint8Array(3))
  const before = new Map(
    await Promise.all((await store.list('')).map(async (name) => [name, await store.get(name)] as const)),
  )

  const found = await rewrap(store, keyring)
  t.deepEqual(summary(found), [
    'f/bare ERR_STATE_LOST',
    'f/foreign ERR_IDENTITY_MISMATCH',
    'f/form ERR_HEADER_MALFORMED',
    'f/good rewrapped',
    'f/mac ERR_HEADER_MAC',
    'f/payload ERR_PAYLOAD_INVALID',
    'f/swapped ERR_PAYLOAD_INVALID',
    'f/headless ERR_STATE_LOST',
  ])
  for (const name of before.keys())
    if (!name.startsWith('f/good')) t.deepEqual(await store.get(name), before.get(name), name)
  await assertDone(t, store, keyring, new Map([['good', digests.get('good') ?? '']]))
})

test('a damaged or foreign header above one that serves is replaced from that one', async (t) => {
  const [store, keyring] = [new MemoryStore(), rotated()]
  const digests = await fill(store, keyring, ['damaged', 'swapped', 'stale'])
  const first = (await store.get(headerName('f/damaged', 1))) ?? new Uint8Array(0)
  await store.put(headerName('f/damaged', 2), flipped(first, 60))
  await store.put(headerName('f/swapped', 2), first)
  // A run that was cut short before it deleted.
  await store.put(headerName('f/stale', 7), (await store.get(headerName('f/stale', 1))) ?? first)
  t.true((await rewrap(store, keyring)).every(({ status }) => status === 'rewrapped'))
  await assertDone(t, store, keyring, digests)
  t.deepEqual(await generations(store, 'f/stale'), [8])
})

test('two headers of one file key and different contexts are left for the enclave to judge', async (t) => {
  const [store, keyring] = [new MemoryStore(), rotated()]
  await fill(store, keyring, ['a'])
  const [header] = await getHeaders(store, 'f/a')
  using fileKey = unwrapHeader(parseHeader(header?.bytes ?? new Uint8Array(0)), identitiesOf(keyring))
  const options = { recipients: [recipientOf(keyring, 2)], random: nodeRandom }
  await store.put(headerName('f/a', 2), wrapHeader(fileKey, options, [contextStanza(contextOf('other'), fileKey, [])]))
  t.deepEqual(summary(await rewrap(store, keyring)), ['f/a ERR_CONTEXT_MISMATCH'])
  t.deepEqual(await generations(store, 'f/a'), [2, 1])
})

test('a store that doesn’t give back what was put to it loses no older header', async (t) => {
  const [inner, keyring] = [new MemoryStore(), rotated()]
  await fill(inner, keyring, NAMES)
  const next = headerName('f/a', 2)
  const lies: Readonly<Record<string, (bytes: Uint8Array) => Uint8Array>> = {
    nothing: () => new Uint8Array(0),
    damage: (bytes) => flipped(bytes, 60),
    'the header of another': () => header,
    'the header from before': () => before,
    more: (bytes) => concatBytes(bytes, bytes),
  }
  const header = (await inner.get(headerName('f/b', 1))) ?? new Uint8Array(0)
  const before = (await inner.get(headerName('f/a', 1))) ?? new Uint8Array(0)
  for (const [lie, make] of Object.entries(lies)) {
    const store = aroundStore(inner, async ({ operation, subject }, work) => {
      const answer = await work()
      const isLie = operation === 'store-read' && subject === next && answer instanceof Uint8Array
      return isLie ? (make(answer) as typeof answer) : answer
    })
    const [first] = await rewrap(store, keyring, 'f/a')
    t.is(first?.status, 'failed', lie)
    t.true((await generations(inner, 'f/a')).includes(1), lie)
    await inner.delete(next)
  }
})

test('a pair that an enclave collects meanwhile has no status and leaves nothing behind', async (t) => {
  for (const operation of ['store-read', 'store-put'] as const) {
    const [inner, keyring] = [new MemoryStore(), rotated()]
    await fill(inner, keyring, ['a'])
    let collected = false
    const store = aroundStore(inner, async (call, work) => {
      if (call.operation === operation && !collected) {
        collected = true
        await inner.delete(headerName('f/a', 1))
        await inner.delete(payloadName('f/a'))
      }
      return work()
    })
    t.deepEqual(await rewrap(store, keyring), [], operation)
    t.deepEqual(await inner.list(''), [], operation)
  }
})

test('a payload that is listed and cannot be read is reported, and its headers stay', async (t) => {
  const [inner, keyring] = [new MemoryStore(), rotated()]
  await fill(inner, keyring, ['a', 'b'])
  const all = aroundStore(inner, (_call, work) => work())
  const blind: Store = {
    ...all,
    read: async (name, ...range) => (name === payloadName('f/a') ? undefined : all.read(name, ...range)),
  }
  t.deepEqual(summary(await rewrap(blind, keyring)), ['f/a ERR_STATE_LOST', 'f/b rewrapped'])
  t.deepEqual(await inner.list('f/a'), [headerName('f/a', 1), payloadName('f/a')])
})

test('a pair whose header an enclave is about to write is rewrapped, not reported', async (t) => {
  const [inner, keyring] = [new MemoryStore(), rotated()]
  await fill(inner, keyring, ['a', 'b'])
  const header = (await inner.get(headerName('f/b', 1))) ?? new Uint8Array(0)
  await inner.delete(headerName('f/b', 1))
  const store = aroundStore(inner, async ({ operation, subject }, work) => {
    if (operation === 'store-put' && subject.startsWith('f/a')) await inner.put(headerName('f/b', 1), header)
    return work()
  })
  t.deepEqual(summary(await rewrap(store, keyring)), ['f/a rewrapped', 'f/b rewrapped'])
})

test('one flow’s pairs are rewrapped and no other’s; a signal or a break stops between two', async (t) => {
  const [store, keyring] = [new MemoryStore(), rotated()]
  const names = Array.from({ length: 40 }, (_value, index) => `n${String(index).padStart(2, '0')}`)
  await fill(store, keyring, names)
  await putPair(store, 'ff/a', seal('a', [recipientOf(keyring, 1)]))
  const stop = new AbortController()
  const seen: string[] = []
  const options = { keyring, store, prefix: 'f/', random: nodeRandom }
  await t.throwsAsync(
    async () => {
      for await (const { name } of rewrapPairs({ ...options, signal: stop.signal })) {
        seen.push(name)
        stop.abort(new Error('enough'))
      }
    },
    { message: 'enough' },
  )
  t.is(seen.length, 1)
  for await (const _first of rewrapPairs(options)) break
  const rest = await rewrap(store, keyring, 'f/')
  t.is(rest.length, names.length)
  t.true(rest.some(({ status }) => status === 'rewrapped') && rest.some(({ status }) => status === 'current'))
  t.deepEqual(await generations(store, 'ff/a'), [1])
})

/** Counts the bytes that are written through it. */
const counting = (fs: FileSystem): { fs: FileSystem; written: () => number } => {
  let size = 0
  const around = (file: OpenFile): OpenFile => ({
    read: (into, position) => file.read(into, position),
    write: async (from, position) => {
      const count = await file.write(from, position)
      size += count
      return count
    },
    sync: () => file.sync(),
    size: () => file.size(),
    truncate: (sizeBytes) => file.truncate(sizeBytes),
    close: () => file.close(),
  })
  return {
    written: () => size,
    fs: {
      open: async (path, mode) => around(await fs.open(path, mode)),
      rename: (from, to) => fs.rename(from, to),
      unlink: (path) => fs.unlink(path),
      makeDirectory: (path) => fs.makeDirectory(path),
      list: (path) => fs.list(path),
      syncDirectory: (path) => fs.syncDirectory(path),
    },
  }
}

test('of envelopes of 1 MiB a rotation writes less than a thousandth', async (t) => {
  const { fs, written } = counting(new MemoryFileSystem())
  const keyring = rotated()
  const store = new DirectoryStore('/sealed', fs)
  await fill(store, keyring, NAMES, 1024 * 1024)
  const stored = written()
  t.true((await rewrap(store, keyring)).every(({ status }) => status === 'rewrapped'))
  t.true((written() - stored) / stored < 0.001)
})
