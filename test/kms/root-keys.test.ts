import test from 'ava'
import { dependentsOf } from '../../kms/dependents.js'
import { Keyring } from '../../kms/keyring.js'
import { describeKeys, withChange, withNext, withoutDue, type RootKeys } from '../../kms/root-keys.js'
import { asciiBytes, concatBytes, copyBytes } from '../../protocol/bytes.js'
import { encodeCbor } from '../../protocol/cbor.js'
import { openEnvelope, sealEnvelope } from '../../protocol/crypto/envelope.js'
import { nodeRandom } from '../../protocol/crypto/primitives.js'
import { scryptIdentity, scryptRecipient } from '../../protocol/crypto/recipients.js'
import { makeRootSecrets, makeSeeds } from '../../protocol/crypto/root-private.js'
import { rootRecipient } from '../../protocol/crypto/root-public.js'
import { Secret } from '../../protocol/crypto/secret.js'
import { decodeCertificateBody, splitCertificate } from '../../protocol/statements.js'
import { putPair } from '../../protocol/sealed-pair.js'
import { MemoryStore } from '../../storage/index.js'

const passphrase = Secret.take(asciiBytes('correct horse'))
const reopen = (keyring: Keyring): Keyring =>
  Keyring.open(keyring.seal({ passphrase, random: nodeRandom, logN: 4 }), passphrase)
const next = (keys: RootKeys, id = 'root'): RootKeys => withNext(keys, id, makeSeeds('x25519', nodeRandom))
const statesOf = (keys: RootKeys): string[] => describeKeys(keys).map(({ key, state }) => `${key} ${state}`)

test('a keyring with keys of several ids and suites, in all states, comes back from its file whole', async (t) => {
  using keyring = Keyring.create(nodeRandom)
  keyring.change(withNext(keyring.keys, 'root', await makeRootSecrets('rsa-oaep-3072', nodeRandom)))
  keyring.change(withNext(keyring.keys, 'hospital', await makeRootSecrets('mlkem768x25519', nodeRandom)))
  keyring.change(next(next(keyring.keys, 'hospital'), 'root'))
  keyring.change(withChange(keyring.keys, 'root@1', { kind: 'destroy', atMs: 1000 }))
  keyring.change(withoutDue(keyring.keys, 1000))
  keyring.change(withChange(keyring.keys, 'root@2', { kind: 'destroy', atMs: 2000 }))
  using opened = reopen(keyring)
  t.deepEqual(describeKeys(opened.keys), describeKeys(keyring.keys))
  t.deepEqual(statesOf(opened.keys), [
    'root@3 enabled',
    'hospital@2 enabled',
    'hospital@1 decrypt-only',
    'root@2 disabled',
    'root@1 destroyed',
  ])
  t.is(opened.revision, keyring.revision)
  t.true(
    opened.rootKeys.every(({ privateKey, originKey }, index) => {
      const other = keyring.rootKeys[index]
      return other?.privateKey.equals(privateKey) === true && other.originKey.equals(originKey)
    }),
  )
})

test('certificates name the enabled version of an id first, and none that opens nothing', (t) => {
  using keyring = Keyring.create(nodeRandom)
  keyring.change(next(next(keyring.keys), 'hospital'))
  const namesOf = (id?: string): string[] =>
    keyring.certificates(id).map((claimed) => decodeCertificateBody(splitCertificate(claimed).body).key)
  t.deepEqual(namesOf(), ['root@2', 'hospital@1', 'root@1'])
  t.deepEqual(namesOf('hospital'), ['hospital@1', 'root@2', 'root@1'])
  t.throws(() => namesOf('clinic'), { code: 'ERR_KEY_UNKNOWN' })
  keyring.change(withChange(keyring.keys, 'root@1', { kind: 'disable' }))
  t.deepEqual(namesOf(), ['root@2', 'hospital@1'])
})

test('a version is disabled and enabled, or destroyed after a time that can be cancelled; no other change is taken', (t) => {
  using keyring = Keyring.create(nodeRandom)
  const keys = next(keyring.keys)
  const refuse = (known: RootKeys, key: string, kind: 'disable' | 'enable' | 'cancel-destruction') =>
    t.throws(() => withChange(known, key, { kind }), { code: 'ERR_KEY_STATE' }, `${key} ${kind}`)
  // The one that enclaves seal to stays.
  refuse(keys, 'root@2', 'disable')
  t.throws(() => withChange(keys, 'root@2', { kind: 'destroy', atMs: 1 }), { code: 'ERR_KEY_STATE' })
  t.throws(() => withChange(keys, 'root@9', { kind: 'disable' }), { code: 'ERR_KEY_UNKNOWN' })
  refuse(keys, 'root@1', 'enable')
  refuse(keys, 'root@1', 'cancel-destruction')
  const disabled = withChange(keys, 'root@1', { kind: 'disable' })
  refuse(disabled, 'root@1', 'disable')
  t.is(withChange(disabled, 'root@1', { kind: 'enable' }).live[1]?.state, 'decrypt-only')

  const waiting = withChange(keys, 'root@1', { kind: 'destroy', atMs: 1000 })
  t.deepEqual(statesOf(waiting), ['root@2 enabled', 'root@1 disabled'])
  refuse(waiting, 'root@1', 'enable')
  t.throws(() => withChange(waiting, 'root@1', { kind: 'destroy', atMs: 1 }), { code: 'ERR_KEY_STATE' })
  t.is(withoutDue(waiting, 999), waiting)
  const cancelled = withChange(waiting, 'root@1', { kind: 'cancel-destruction' })
  t.deepEqual(statesOf(withoutDue(cancelled, 1000)), ['root@2 enabled', 'root@1 disabled'])
  const ended = withoutDue(waiting, 1000)
  t.deepEqual(statesOf(ended), ['root@2 enabled', 'root@1 destroyed'])
  refuse(ended, 'root@1', 'enable')
  // A name is never used again.
  t.is(next(ended).live[0]?.key, 'root@3')
})

test('when its time has come the secret halves are wiped, and no file has them any more', (t) => {
  using keyring = Keyring.create(nodeRandom)
  keyring.change(next(keyring.keys))
  const [, older] = keyring.rootKeys
  const secrets = [older?.privateKey, older?.originKey].map((secret) => secret?.expose((bytes) => bytes))
  const copies = secrets.map((bytes) => copyBytes(bytes ?? new Uint8Array(1)))
  const isIn = (file: Uint8Array): boolean => {
    const { plaintext } = openEnvelope(file, { identities: [scryptIdentity(passphrase)] })
    return copies.some((copy) => Buffer.from(plaintext).includes(Buffer.from(copy)))
  }
  const seal = () => keyring.seal({ passphrase, random: nodeRandom, logN: 4 })
  keyring.change(withChange(keyring.keys, 'root@1', { kind: 'destroy', atMs: 1000 }))
  t.true(isIn(seal()))
  keyring.change(withoutDue(keyring.keys, 1000))
  t.false(isIn(seal()))
  t.true(secrets.every((bytes) => bytes?.every((byte) => byte === 0)))
  t.deepEqual(statesOf(reopen(keyring).keys), ['root@2 enabled', 'root@1 destroyed'])
})

test('a keyring of format 1 opens, and is written as one of format 2; of a later one its number is said', (t) => {
  using keyring = Keyring.create(nodeRandom)
  keyring.rotate(nodeRandom)
  const sealed = openEnvelope(keyring.seal({ passphrase, random: nodeRandom, logN: 4 }), {
    identities: [scryptIdentity(passphrase)],
  }).plaintext
  const metaSize = new DataView(sealed.buffer, sealed.byteOffset).getUint32(0)
  const write = (meta: Uint8Array): Uint8Array => {
    const size = new Uint8Array(4)
    new DataView(size.buffer).setUint32(0, meta.length)
    const plaintext = concatBytes(size, meta, sealed.subarray(4 + metaSize))
    return sealEnvelope(plaintext, { recipients: [scryptRecipient(passphrase, 4)], random: nodeRandom })
  }
  const keys = keyring.rootKeys.map(({ state, certificate }) => ({ state, ...certificate }))
  using opened = Keyring.open(
    write(encodeCbor(['keyrise/v1/keyring', { identity: keyring.identity, keys }])),
    passphrase,
  )
  t.deepEqual(describeKeys(opened.keys), describeKeys(keyring.keys))
  using again = reopen(opened)
  t.deepEqual(describeKeys(again.keys), describeKeys(keyring.keys))
  const error = t.throws(() => Keyring.open(write(encodeCbor(['keyrise/v3/keyring', {}])), passphrase), {
    code: 'ERR_KEYRING_NEWER',
  })
  t.regex(String(error), /format 3/)
})

test('what would be unreadable without a version is named: what it opens, and no version that stays', async (t) => {
  using keyring = Keyring.create(nodeRandom)
  keyring.change(next(next(keyring.keys)))
  const store = new MemoryStore()
  const recipients = keyring.rootKeys.map(({ certificate }) => rootRecipient(certificate)).reverse()
  const put = async (name: string, ...versions: number[]): Promise<void> => {
    const to = versions.flatMap((version) => recipients[version - 1] ?? [])
    await putPair(store, name, sealEnvelope(asciiBytes(name), { recipients: to, random: nodeRandom }))
  }
  await put('f/a', 1)
  await put('f/b', 1, 3)
  await put('f/c', 2)
  await put('f/d', 1, 2)
  await put('g/a', 1)
  const names = async (keys: RootKeys, prefix = '') => {
    const found: string[] = []
    for await (const name of dependentsOf({ keys, key: 'root@1', store, prefix })) found.push(name)
    return found
  }
  t.deepEqual(await names(keyring.keys), ['f/a', 'g/a'])
  t.deepEqual(await names(keyring.keys, 'g/'), ['g/a'])
  // Another version that is to go as well keeps nothing readable.
  t.deepEqual(await names(withChange(keyring.keys, 'root@2', { kind: 'destroy', atMs: 1 })), ['f/a', 'f/d', 'g/a'])
})
