import test from 'ava'
import { MemoryFileSystem, SimulatedClock } from '../../faults/index.js'
import { parseHeader } from '../../protocol/age-header.js'

import { rootIdentity, rootKeyObject, makeSeeds } from '../../protocol/crypto/root-private.js'
import { KeyriseError } from '../../protocol/errors.js'
import type { Store } from '../../protocol/ports.js'
import { getHeaders, putPair } from '../../protocol/sealed-pair.js'
import { sealEnvelope, unwrapHeader } from '../../protocol/crypto/envelope.js'
import { MemoryStore } from '../../storage/index.js'
import { KmsControl } from '../../kms/control.js'
import { Metrics } from '../../kms/metrics.js'
import { openKms, type OpenKms } from '../../kms/open-kms.js'
import { createKms, openKeyring } from '../../kms/place.js'
import { withChange, withNext } from '../../kms/root-keys.js'
import { InlineUnsealer } from '../../kms/unseal.js'
import { parseX25519Recipient, x25519Recipient } from '../../protocol/crypto/recipients.js'
import { asciiBytes } from '../../protocol/bytes.js'
import { nodeRandom } from '../../protocol/crypto/primitives.js'
import { Secret } from '../../protocol/crypto/secret.js'
import { AttestedClient, newestKey, openByKms, sealToKms, TestPlatform } from './attested-client.js'
import { IMAGE } from './in-process.js'

const start = async () => {
  let isBroken = false
  const renamed: string[] = []
  const fs = new MemoryFileSystem((operation) => {
    if (operation.kind !== 'rename') return undefined
    renamed.push(operation.path.split(' ').at(-1) ?? '')
    return isBroken ? { fail: 'ENOSPC' } : undefined
  })
  const [clock, platform] = [new SimulatedClock(), new TestPlatform()]
  await fs.makeDirectory('/kms')
  const passphrase = Secret.take(asciiBytes('correct horse'))
  const options = { place: { directory: '/kms' }, passphrase, fs, random: nodeRandom, clock }
  await createKms({ ...options, logN: 4 })
  const policy = { platforms: [platform.publicKey], images: [{ name: 'party', measurement: IMAGE }] }
  const startUnsealer = (keys: ConstructorParameters<typeof InlineUnsealer>[0]) =>
    Promise.resolve(new InlineUnsealer(keys))
  const kms = await openKms({ ...options, policy, startUnsealer })
  const connect = () => AttestedClient.connect({ kms, kmsIdentity: kms.identity, platform, image: IMAGE })
  return {
    kms,
    passphrase,
    options,
    policy,
    startUnsealer,
    platform,
    renamed,
    connect,
    breakDisk: () => (isBroken = true),
  }
}

test('a rotation while it runs: sessions end, the next is told the new key, and what was sealed to the older still opens', async (t) => {
  const { kms, passphrase, options, connect } = await start()
  const client = await connect()
  await client.launch()
  const { encryptionKey } = newestKey(await client.open())
  const sealed = sealToKms(asciiBytes('for years'), { encryptionKey, origin: client.origin, image: IMAGE })
  await kms.changeKeys(passphrase, (keys) => withNext(keys, 'root', makeSeeds('mlkem768x25519', nodeRandom)))
  t.deepEqual(
    kms.keys.map(({ key, state }) => `${key} ${state}`),
    ['root@2 enabled', 'root@1 decrypt-only'],
  )
  await t.throwsAsync(client.open(), { code: 'ERR_SESSION_INVALID' })
  const next = await connect()
  t.like(newestKey(await next.open()), { key: 'root@2', suite: 'mlkem768x25519' })
  t.deepEqual(await openByKms(next, sealed), asciiBytes('for years'))
  using keyring = await openKeyring(options)
  t.deepEqual(
    keyring.rootKeys.map(({ key }) => key),
    ['root@2', 'root@1'],
  )

  await kms.changeKeys(passphrase, (keys) => withChange(keys, 'root@1', { kind: 'disable' }))
  const last = await connect()
  await last.open()
  await t.throwsAsync(openByKms(last, sealed))
  await kms.close()
})

test('a change whose file cannot be written changes nothing of the KMS that runs', async (t) => {
  const { kms, passphrase, connect, breakDisk } = await start()
  const client = await connect()
  await client.launch()
  breakDisk()
  await t.throwsAsync(kms.changeKeys(passphrase, (keys) => withNext(keys, 'root', makeSeeds('x25519', nodeRandom))))
  t.deepEqual(
    kms.keys.map(({ key }) => key),
    ['root@1'],
  )
  t.is(newestKey(await client.open()).key, 'root@1')
})

test('a version whose time has come is destroyed while the KMS runs, and cannot be cancelled any more; there is a receipt', async (t) => {
  const { kms, passphrase, options, policy, startUnsealer } = await start()
  const { clock } = options
  await kms.changeKeys(passphrase, (keys) => withNext(keys, 'root', makeSeeds('x25519', nodeRandom)))
  await kms.changeKeys(passphrase, (keys) => withChange(keys, 'root@1', { kind: 'destroy', atMs: 10_000 }))
  await kms.close()
  await using control = await KmsControl.unlocked(
    { ...options, policy, startUnsealer, metrics: new Metrics() },
    passphrase.clone(),
  )
  const states = () => control.openKms.rootKeys.map(({ key, state }) => `${key} ${state}`)
  await clock.advance(9_999)
  t.deepEqual(states(), ['root@2 enabled', 'root@1 disabled'])
  clock.jump(1)
  const cancelled = control.change((open) =>
    open.changeKeys(passphrase, (keys) => withChange(keys, 'root@1', { kind: 'cancel-destruction' })),
  )
  await t.throwsAsync(cancelled, { code: 'ERR_KEY_STATE', message: /destroyed/ })
  await clock.advance(60_000)
  await control.change(() => Promise.resolve())
  t.deepEqual(states(), ['root@2 enabled', 'root@1 destroyed'])
  t.deepEqual(clock.pendingMs, [])
  using keyring = await openKeyring(options)
  t.deepEqual(
    keyring.destroyedKeys.map(({ key }) => key),
    ['root@1'],
  )
  t.like(control.openKms.look().receipts.at(-1), { kind: 'key-state', key: 'root@1', state: 'destroyed' })
})

test('a start ends what is due', async (t) => {
  const { kms, passphrase, options, policy, startUnsealer } = await start()
  await kms.changeKeys(passphrase, (keys) => withNext(keys, 'root', makeSeeds('x25519', nodeRandom)))
  await kms.changeKeys(passphrase, (keys) => withChange(keys, 'root@1', { kind: 'destroy', atMs: 10_000 }))
  await kms.close()
  options.clock.jump(10_000)
  const next = await openKms({ ...options, policy, startUnsealer })
  t.deepEqual(
    next.rootKeys.map(({ key, state }) => `${key} ${state}`),
    ['root@2 enabled', 'root@1 destroyed'],
  )
  await next.close()
})

/** Pairs that nobody but the holder of the root keys can open. */
const fillStore = async (store: Store, kms: OpenKms, names: readonly string[]): Promise<void> => {
  const recipients = [x25519Recipient(parseX25519Recipient(kms.keys[0]?.recipient ?? ''))]
  for (const name of names)
    await putPair(store, name, sealEnvelope(asciiBytes(name), { recipients, random: nodeRandom }))
}

const openers = async (options: Parameters<typeof openKeyring>[0], store: Store, names: readonly string[]) => {
  using keyring = await openKeyring(options)
  const found: string[] = []
  for (const name of names) {
    const headers = await getHeaders(store, name)
    for (const { bytes } of headers) {
      const key = keyring.rootKeys.find((root) => {
        const identity = rootIdentity(root.suite, rootKeyObject(root))
        try {
          unwrapHeader(parseHeader(bytes), [identity])[Symbol.dispose]()
          return true
        } catch {
          return false
        } finally {
          identity[Symbol.dispose]?.()
        }
      })
      found.push(`${name} ${key?.key ?? 'nobody'}`)
    }
  }
  return found
}

const NAMES = Array.from({ length: 9 }, (_, index) => `flow-1/e${String(index)}`)

/** Waits for something that other work brings about. */
const until = async (isSo: () => boolean): Promise<void> => {
  while (!isSo()) await new Promise((resolve) => setImmediate(resolve))
}

test('after a rotation the registered stores are rewrapped by the KMS that runs, with progress and a receipt for each', async (t) => {
  const { kms: first, passphrase, options, policy, startUnsealer } = await start()
  await first.close()
  const [a, b] = [new MemoryStore(), new MemoryStore()]
  const stores = new Map([
    ['a', a],
    ['b', b],
  ])
  const kms = await openKms({ ...options, policy, startUnsealer, stores })
  t.deepEqual(kms.rewraps.progress, { state: 'idle', stores: [], failures: [] })
  await fillStore(a, kms, NAMES)
  await fillStore(b, kms, ['flow-2/x'])
  await b.put('flow-2/y.header-0000000001', asciiBytes('no header'))
  await b.put('flow-2/y.payload', new Uint8Array(64))
  await kms.changeKeys(passphrase, (keys) => withNext(keys, 'root', makeSeeds('x25519', nodeRandom)))
  await until(() => kms.rewraps.progress.state !== 'running')
  t.deepEqual(kms.rewraps.progress, {
    state: 'done',
    stores: [
      { store: 'a', total: 9, rewrapped: 9, current: 0, failed: 0, code: null },
      { store: 'b', total: 2, rewrapped: 1, current: 0, failed: 1, code: null },
    ],
    failures: [{ store: 'b', name: 'flow-2/y', code: 'ERR_HEADER_MALFORMED' }],
  })
  t.deepEqual(
    await openers(options, a, NAMES),
    NAMES.map((name) => `${name} root@2`),
  )
  const receipts = kms.look().receipts.filter(({ kind }) => kind === 'rewrap')
  t.deepEqual(
    receipts.map(({ reason }) => reason),
    ['a: 9 rewrapped, 0 current, 0 failed', 'b: 1 rewrapped, 0 current, 1 failed'],
  )
  t.deepEqual(
    kms.look().rewrap.stores.map(({ store }) => store),
    ['a', 'b'],
  )
  await kms.close()
})

test('a rewrap that a stop cut short goes on with the next start; one that ended does not come again', async (t) => {
  const { kms: first, passphrase, options, policy, startUnsealer, renamed } = await start()
  await first.close()
  const store = new MemoryStore()
  const stores = new Map([['a', store]])
  const open = () => openKms({ ...options, policy, startUnsealer, stores })
  const kms = await open()
  await fillStore(store, kms, NAMES)
  renamed.length = 0
  await kms.changeKeys(passphrase, (keys) => withNext(keys, 'root', makeSeeds('x25519', nodeRandom)))
  await kms.close()
  // A crash between the two leaves a pass that finds nothing to do, and never a rotation without one.
  t.deepEqual(renamed.slice(0, 2), ['/kms/rewrap.pending', '/kms/keyring.age'])
  t.true((await openers(options, store, NAMES)).some((line) => line.endsWith('root@1')))
  const next = await open()
  t.is(next.rewraps.progress.state, 'running')
  await until(() => next.rewraps.progress.state !== 'running')
  t.true((await openers(options, store, NAMES)).every((line) => line.endsWith('root@2')))
  await next.close()
  const last = await open()
  t.is(last.rewraps.progress.state, 'idle')
  await last.close()
})

test('a store that cannot be listed is named with its code, and the pass is made again at the next start', async (t) => {
  const { kms: first, passphrase, options, policy, startUnsealer } = await start()
  await first.close()
  const broken = new MemoryStore()
  broken.list = () => Promise.reject(new KeyriseError('ERR_STORE_IO'))
  const stores = new Map<string, Store>([['a', broken]])
  const kms = await openKms({ ...options, policy, startUnsealer, stores })
  await kms.changeKeys(passphrase, (keys) => withNext(keys, 'root', makeSeeds('x25519', nodeRandom)))
  await until(() => kms.rewraps.progress.state !== 'running')
  t.like(kms.rewraps.progress, { state: 'failed', stores: [{ store: 'a', code: 'ERR_STORE_IO' }] })
  t.like(kms.look().receipts.at(-1), { kind: 'rewrap', outcome: 'ERR_STORE_IO' })
  await kms.close()
  const next = await openKms({ ...options, policy, startUnsealer, stores: new Map([['a', new MemoryStore()]]) })
  await until(() => next.rewraps.progress.state !== 'running')
  t.is(next.rewraps.progress.state, 'done')
  await next.close()
})

test('flows have root keys of their own or share one, as the policy says; a rewrap moves what they sealed before', async (t) => {
  const { kms: first, passphrase, options, policy, startUnsealer, platform } = await start()
  await fillKeys(first, passphrase, ['tenant-a', 'tenant-b', 'shared'])
  await first.close()
  const keys = [
    { id: 'tenant-a', flows: ['a'] },
    { id: 'tenant-b', flows: ['b'] },
    { id: 'shared', flows: ['c-*'] },
  ]
  const store = new MemoryStore()
  const stores = new Map([['all', store]])
  const kms = await openKms({ ...options, policy: { ...policy, keys }, startUnsealer, stores })
  const expected = { a: 'tenant-a@1', b: 'tenant-b@1', 'c-1': 'shared@1', 'c-2': 'shared@1', other: 'root@1' }
  for (const [flow, key] of Object.entries(expected)) {
    const client = await AttestedClient.connect({ kms, kmsIdentity: kms.identity, platform, image: IMAGE })
    const opened = await client.open(flow)
    t.is(newestKey(opened).key, key)
    const sealed = sealToKms(asciiBytes(flow), {
      encryptionKey: newestKey(opened).encryptionKey,
      origin: client.origin,
      image: IMAGE,
      flow,
    })
    await client.launch(flow)
    t.deepEqual(await openByKms(client, sealed), asciiBytes(flow))
  }
  const names = Object.keys(expected).map((flow) => `${flow}/e`)
  const root = kms.keys.find(({ key }) => key === 'root@1')?.recipient ?? ''
  for (const name of names)
    await putPair(
      store,
      name,
      sealEnvelope(asciiBytes(name), {
        recipients: [x25519Recipient(parseX25519Recipient(root))],
        random: nodeRandom,
      }),
    )
  kms.rewraps.start()
  await until(() => kms.rewraps.progress.state !== 'running')
  t.deepEqual(
    await openers(options, store, names),
    Object.entries(expected).map(([flow, key]) => `${flow}/e ${key}`),
  )
  await kms.close()
  const missing = [{ id: 'tenant-z', flows: ['z'] }]
  await t.throwsAsync(openKms({ ...options, policy: { ...policy, keys: missing }, startUnsealer }), {
    code: 'ERR_KEY_UNKNOWN',
    message: /tenant-z/,
  })
})

const fillKeys = async (kms: OpenKms, passphrase: Secret, ids: readonly string[]): Promise<void> => {
  for (const id of ids)
    await kms.changeKeys(passphrase, (known) => withNext(known, id, makeSeeds('x25519', nodeRandom)))
}
