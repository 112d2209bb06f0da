import test from 'ava'
import { MemoryFileSystem, SimulatedClock } from '../../faults/index.js'
import { openKms } from '../../kms/open-kms.js'
import { createKms, openKeyring } from '../../kms/place.js'
import { withChange, withNext } from '../../kms/root-keys.js'
import { InlineUnsealer } from '../../kms/unseal.js'
import { asciiBytes } from '../../protocol/bytes.js'
import { nodeRandom } from '../../protocol/crypto/primitives.js'
import { makeSeeds } from '../../protocol/crypto/root-private.js'
import { Secret } from '../../protocol/crypto/secret.js'
import { AttestedClient, newestKey, openByKms, sealToKms, TestPlatform } from './attested-client.js'
import { IMAGE } from './in-process.js'

const start = async () => {
  let isBroken = false
  const fs = new MemoryFileSystem(({ kind }) => (isBroken && kind === 'rename' ? { fail: 'ENOSPC' } : undefined))
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
  return { kms, passphrase, options, connect, breakDisk: () => (isBroken = true) }
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
