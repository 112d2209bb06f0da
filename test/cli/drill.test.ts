import { copyFile, mkdir, readdir, readFile, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'ava'
import { runDrill, type DrillOptions } from '../../cli/drill.js'
import { openFlow } from '../../enclave/flow.js'
import { commitChannel } from '../../host/commits.js'
import { segmentChannel } from '../../host/segments.js'
import { FileLedger } from '../../kms/file-ledger.js'
import { Keyring } from '../../kms/keyring.js'
import { unsealKeys } from '../../kms/unseal-keys.js'
import { KmsService } from '../../kms/service.js'
import { InlineUnsealer } from '../../kms/unseal.js'
import { SimulatedVerifier } from '../../kms/verifier.js'
import { asciiBytes, copyBytes, toHex } from '../../protocol/bytes.js'
import { nodeRandom } from '../../protocol/crypto/primitives.js'
import { Secret } from '../../protocol/crypto/secret.js'
import { parseFlowId } from '../../protocol/names.js'
import type { Store } from '../../protocol/ports.js'
import { DirectoryReader, DirectoryStore, MirrorStore, nodeClock, nodeFileSystem } from '../../storage/index.js'
import { TestPlatform } from '../kms/attested-client.js'
import { IMAGE, OTHER_IMAGE } from '../kms/in-process.js'
import { initPlace, makePlace, PASSPHRASE } from '../kms/served.js'
import { run } from './command.js'

/** A KMS on a real directory that goes on serving, a store of two real directories, and flows in it. */
const setUp = async (t: Parameters<typeof makePlace>[0], { isRotated = false } = {}) => {
  const place = await makePlace(t)
  await initPlace(place)
  const open = async (path = place.custody) => Keyring.open(await readFile(path), Secret.take(copyBytes(PASSPHRASE)))
  const keyring = await open()
  // In memory alone: the file is as it was before the rotation.
  if (isRotated) keyring.rotate(nodeRandom)
  const ledger = await FileLedger.open(nodeFileSystem, place.directory, keyring.identity)
  const platform = new TestPlatform()
  const images = [IMAGE, OTHER_IMAGE].map((measurement, index) => ({ name: `image-${index}`, measurement }))
  const policy = { platforms: [platform.publicKey], images }
  const service = new KmsService({
    keyring,
    ledger,
    policy,
    verifier: new SimulatedVerifier(policy),
    unsealer: new InlineUnsealer(unsealKeys(keyring)),
    random: nodeRandom,
    clock: nodeClock,
  })
  t.teardown(async () => {
    await service.close()
    await ledger.close()
  })
  const directories = [join(place.root, 'sealed-1'), join(place.root, 'sealed-2')] as const
  const stores = directories.map((directory) => new DirectoryStore(directory))
  const launch = async (flow: string, store: Store = new MirrorStore(stores), image = IMAGE) => {
    const opened = await openFlow({
      store,
      kms: service,
      commits: commitChannel(store, service),
      segments: segmentChannel(store, service),
      attester: {
        attest: (claims) =>
          Promise.resolve(
            platform.attest({
              nonce: copyBytes(claims.nonce),
              confirmationKey: copyBytes(claims.confirmationKey),
              measurement: image,
            }),
          ),
      },
      kmsIdentity: keyring.identity,
      flow: parseFlowId(flow),
      task: parseFlowId(flow),
      image,
      random: nodeRandom,
      clock: nodeClock,
    })
    await opened.flow.checkpoint({
      'password/a': asciiBytes('a'),
      'session/peer': { to: 'kms', bytes: asciiBytes('b') },
    })
    await opened.flow.checkpoint({ 'password/c': asciiBytes('c') })
    return opened
  }
  const drill = (options: Partial<DrillOptions> = {}) =>
    runDrill({
      keyring,
      directory: place.directory,
      copies: directories.map((directory) => new DirectoryReader(directory)),
      flows: undefined,
      policy: undefined,
      image: undefined,
      progress: () => undefined,
      ...options,
    })
  const [first, second] = stores as [DirectoryStore, DirectoryStore]
  return { place, keyring, open, directories, first, second, launch, drill, policy }
}

const named = async (store: Store, part: string): Promise<string> => {
  const [name] = (await store.list('')).filter((claimed) => claimed.includes(part))
  if (name === undefined) throw new Error(`nothing named ${part}`)
  return name
}
const replace = async (store: Store, name: string, bytes: Uint8Array): Promise<void> => {
  await store.delete(name)
  await store.put(name, bytes)
}
/** What is in a directory, and when it was changed. */
const contents = async (path: string): Promise<readonly string[]> => {
  const names = (await readdir(path, { recursive: true })).sort()
  return Promise.all(names.map(async (name) => `${name} ${(await stat(join(path, name))).mtimeMs}`))
}

test('against a live KMS and store in which all is well: nothing is found, and nothing is changed', async (t) => {
  const { place, directories, launch, drill } = await setUp(t)
  const { flow } = await launch('flow-1')
  const before = await Promise.all([place.directory, ...directories].map(contents))
  t.deepEqual(await drill(), { flowCount: 1, objectCount: 4, findings: [] })
  t.deepEqual(await Promise.all([place.directory, ...directories].map(contents)), before)
  // The live instance still holds the flow.
  t.is(await flow.checkpoint({ 'password/a': asciiBytes('later') }), 4)
})

test('a stale, a damaged and a lost object are named, with the copies, and with what only one copy held', async (t) => {
  const { first, second, directories, launch, drill } = await setUp(t)
  await launch('flow-1')
  await second.delete(await named(second, 'root-0000000001.header'))
  const head = await named(second, 'epoch-0000000003')
  await second.delete(head)
  await mkdir(join(directories[1], head))
  const payload = await named(first, 'direct')
  await replace(first, payload, ((await first.get(payload)) ?? new Uint8Array()).subarray(1))
  const lost = await named(first, 'epoch-0000000002')
  await first.delete(lost)
  await second.delete(lost)
  const { findings } = await drill()
  t.like(
    findings.map(({ object = '', ...rest }) => ({ ...rest, object: object.slice(0, 16) })),
    [
      { object: 'root-0000000001', code: 'ERR_DIGEST_MISMATCH', detail: 'copy 2 of 2 lacks it' },
      { object: 'direct-000000000', code: 'ERR_DIGEST_MISMATCH', detail: 'copy 1 of 2 lacks it' },
      {
        object: 'epoch-0000000002',
        code: 'ERR_STATE_LOST',
        detail: 'copy 1 of 2 is missing, copy 2 of 2 is missing',
        entries: ['password/a'],
      },
      { object: 'epoch-0000000003', code: 'ERR_DIGEST_MISMATCH', detail: 'copy 2 of 2 is unreadable' },
    ],
  )
  t.is(findings.length, 4)
})

test('an epoch behind the ledger, a lost flow and one that the ledger never knew are each named', async (t) => {
  const { first, second, launch, drill } = await setUp(t)
  await launch('rolled-back')
  await launch('lost')
  await launch('fine')
  for (const store of [first, second]) {
    for (const name of await store.list('lost/')) await store.delete(name)
    await store.delete(await named(store, 'rolled-back/epoch-0000000003'))
    await store.put('foreign/epoch-0000000002-0000000001-000001.age', asciiBytes('x'))
  }
  const { flowCount, findings } = await drill()
  t.is(flowCount, 3)
  t.deepEqual(findings.map(({ flow, code }) => `${flow} ${code}`).sort(), [
    'foreign ERR_FORK',
    'lost ERR_STATE_LOST',
    'rolled-back ERR_ROLLBACK',
  ])
  t.deepEqual((await drill({ flows: [parseFlowId('fine')] })).findings, [])
})

test('a keyring that lacks the key version that a flow was sealed to is named', async (t) => {
  const { open, launch, drill } = await setUp(t, { isRotated: true })
  await launch('flow-1')
  const { findings } = await drill({ keyring: await open() })
  t.deepEqual(
    findings.map(({ code, object }) => [code, object?.slice(0, 4)]),
    [
      ['ERR_STATE_LOST', undefined],
      ['ERR_KEY_UNKNOWN', 'root'],
    ],
  )
  t.regex(findings[1]?.detail ?? '', /which has root@1$/)
  t.deepEqual((await drill()).findings, [])
})

test('a policy that no longer lists a flow’s image is named, and so is another image than the flow’s', async (t) => {
  const { launch, drill, policy } = await setUp(t)
  await launch('flow-1')
  const [image, other] = policy.images as [(typeof policy.images)[0], (typeof policy.images)[0]]
  const denied = { flow: 'flow-1', code: 'ERR_POLICY_DENIED' }
  t.deepEqual((await drill({ policy })).findings, [])
  t.like((await drill({ policy: { ...policy, images: [other] } })).findings, [denied])
  const asked = (asking: typeof image) => ({ policy, image: { ...asking, svn: 1, debug: false, signed: null } })
  t.deepEqual((await drill(asked(image))).findings, [])
  t.like((await drill(asked(other))).findings, [denied])
})

test('a flow that goes on meanwhile is looked at again: what it dropped is no loss', async (t) => {
  const { directories, launch, drill } = await setUp(t)
  const { flow } = await launch('flow-1')
  let overtakeCount = 0
  const reader = new DirectoryReader(directories[0])
  const overtaken: Store = {
    get: async (name) => {
      // Drops what the look under way still lists, once it has begun to read.
      if (name.includes('epoch-') && overtakeCount++ < 2)
        for (const value of ['1', '2', '3'])
          await flow.checkpoint({ 'password/a': asciiBytes(value), 'password/c': asciiBytes(value) })
      return reader.get(name)
    },
    read: (name, offset, sizeBytes) => reader.read(name, offset, sizeBytes),
    list: (prefix) => reader.list(prefix),
    put: (name) => reader.put(name),
    delete: (name) => reader.delete(name),
  }
  t.deepEqual((await drill({ copies: [overtaken] })).findings, [])
  t.true(overtakeCount > 2)
})

test('the command: findings as lines or JSON, and the exit says whether there are any; backups and images beside', async (t) => {
  const { place, directories, first, second, launch, policy } = await setUp(t)
  await launch('flow-1')
  const policyFile = join(place.root, 'policy.json')
  const backup = join(place.root, 'backup.age')
  await copyFile(place.custody, backup)
  await writeFile(join(place.root, 'broken.age'), 'x')
  await writeFile(
    policyFile,
    JSON.stringify({
      platforms: policy.platforms.map((key) => toHex(key)),
      images: policy.images.map(({ name, measurement }) => ({ name, measurement: toHex(measurement) })),
    }),
  )
  const at = ['--directory', place.directory, '--custody', place.custody, '--passphrase-fd', '3']
  const stores = directories.flatMap((directory) => ['--store', directory])
  const drill = (...flags: string[]) => run(['drill', ...at, ...stores, ...flags], PASSPHRASE)
  const whole = join(place.root, 'whole.backup')
  await run(['kms', 'backup', ...at, '--policy', policyFile, '--out', whole], PASSPHRASE)
  const well = await drill('--backup', backup, '--backup', whole, '--policy', policyFile, '--json')
  t.deepEqual([well.code, JSON.parse(well.out)], [0, { flows: 1, objects: 4, findings: [] }])
  const lost = await named(first, 'epoch-0000000002')
  await first.delete(lost)
  await second.delete(lost)
  const bad = await drill('--backup', join(place.root, 'broken.age'), '--backup', join(place.root, 'none.age'))
  t.is(bad.code, 1)
  t.regex(bad.out, /broken\.age {2}ERR_KEYRING_INVALID/)
  t.regex(bad.out, /none\.age {2}ERR_KEYRING_MISSING/)
  t.regex(bad.out, /flow-1 {2}epoch-0000000002\S* {2}ERR_STATE_LOST .*holds password\/a/)
  t.regex(bad.out, /1 flows, 4 objects opened, 3 findings/)
  const mistyped = await run(['drill', ...at, '--store', join(place.root, 'none')], PASSPHRASE)
  t.deepEqual([mistyped.code, mistyped.out], [1, ''])
  t.regex(mistyped.err, /ERR_STORE_UNWRITABLE/)
})

test('a backup made before a rotation lacks the newest key version, and one of another KMS is none', async (t) => {
  const { place, keyring, open } = await setUp(t)
  const other = await makePlace(t)
  await initPlace(other)
  const backup = await open()
  const foreign = await open(other.custody)
  keyring.rotate(nodeRandom)
  const { judgeBackup } = await import('../../cli/drill.js')
  t.like(await judgeBackup(keyring, place.custody, () => backup), [
    { code: 'ERR_KEY_UNKNOWN', detail: 'a copy made before root@2' },
  ])
  t.like(await judgeBackup(keyring, other.custody, () => foreign), [{ code: 'ERR_KEYRING_INVALID' }])
})
