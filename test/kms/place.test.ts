import test from 'ava'
import { rotateKeyring } from '../../kms/change-keys.js'
import { FileLedger, LEDGER_NAME } from '../../kms/file-ledger.js'
import { Keyring } from '../../kms/keyring.js'
import { openKms } from '../../kms/open-kms.js'
import { hasKeyring, type KmsPlace } from '../../kms/custody-files.js'
import { createKms, openKeyring, prepareDirectory, restoreKms, type KmsIdentity } from '../../kms/place.js'
import { asciiBytes } from '../../protocol/bytes.js'
import { nodeRandom } from '../../protocol/crypto/primitives.js'
import { Secret } from '../../protocol/crypto/secret.js'
import { parseFlowId } from '../../protocol/names.js'
import { discard, nodeClock, publish, readWhole } from '../../storage/index.js'
import { receiptsIn } from './receipts-in.js'
import { flowState } from './flow-state.js'
import { interrupted, countOperations, makeFaultyDisk, stopAndRestart, stopsWithin } from '../storage/faulty-disk.js'

const passphrase = Secret.take(asciiBytes('correct horse'))
const PLACE: KmsPlace = { directory: '/kms', custody: '/custody/keyring.age' }

const makeDisk = async () => {
  const { fs, setFault } = makeFaultyDisk()
  await prepareDirectory(fs, '/custody')
  const create = async (place = PLACE) => {
    await prepareDirectory(fs, place.directory)
    return createKms({ place, passphrase, fs, random: nodeRandom, logN: 10 })
  }
  const restore = (newLedger: boolean, place = PLACE) => restoreKms({ place, passphrase, fs, newLedger })
  const rotate = () => rotateKeyring({ place: PLACE, passphrase, fs, random: nodeRandom })
  return { fs, create, restore, rotate, setFault }
}

test('a KMS that is made is there after a power cut, with the same identity', async (t) => {
  const { fs, create, restore } = await makeDisk()
  const made = await create()
  fs.restart()
  const found = await restore(false)
  t.deepEqual(found.identity, made.identity)
  t.deepEqual(found.keys, made.keys)
  t.regex(found.keys[0]?.recipient ?? '', /^age1[a-z0-9]{58}$/)
  t.is(found.ledger, 'kept')
})

test('the first receipt of a KMS is of its making, and of a new ledger that the old one was lost', async (t) => {
  const { fs, create, restore } = await makeDisk()
  await create()
  t.like(await receiptsIn(fs, '/kms'), [
    { kind: 'init', sequence: 1, key: 'root@1', reason: 'opened by one passphrase' },
  ])
  await discard(fs, '/kms', LEDGER_NAME)
  await restore(true)
  const [begun, ...others] = await receiptsIn(fs, '/kms')
  t.like(begun, { kind: 'restore', sequence: 1, reason: 'the ledger was lost: a new one was begun' })
  t.deepEqual(others, [])
})

test('case 17: init never writes over a keyring, nor makes one beside a ledger that knows flows', async (t) => {
  const { fs, create } = await makeDisk()
  const { identity } = await create()
  await t.throwsAsync(create(), { code: 'ERR_KEYRING_EXISTS' })
  const ledger = await FileLedger.open(fs, '/kms', identity)
  await ledger.compareAndSwap(parseFlowId('a'), undefined, flowState())
  await discard(fs, '/custody', 'keyring.age')
  await t.throwsAsync(create(), { code: 'ERR_KEYRING_MISSING' })
  await t.throwsAsync(openKeyring({ place: PLACE, passphrase, fs }), { code: 'ERR_KEYRING_MISSING' })
  t.false(await hasKeyring(PLACE, fs))
})

test('a damaged ledger is no licence for a new keyring', async (t) => {
  const { fs, create } = await makeDisk()
  await create()
  await discard(fs, '/custody', 'keyring.age')
  await publish(fs, '/kms', LEDGER_NAME, new Uint8Array(100))
  await t.throwsAsync(create(), { code: 'ERR_LEDGER_DAMAGED' })
})

test('a crash at any step of init leaves a KMS that is whole, or nothing that hinders the next init', async (t) => {
  const dry = await makeDisk()
  const count = await countOperations(dry.fs, () => dry.create())
  t.true(count > 8)
  for (const stop of stopsWithin(count)) {
    const disk = await makeDisk()
    const made = await stopAndRestart(disk, stop, () => disk.create())
    const again = (await hasKeyring(PLACE, disk.fs)) ? await disk.restore(false) : await disk.create()
    if (made !== undefined) t.deepEqual(again.identity, made.identity)
    t.is((await disk.restore(false)).ledger, 'kept')
  }
})

test('without its ledger a KMS does not start; a new one is begun only on the operator’s word', async (t) => {
  const { fs, create, restore } = await makeDisk()
  const made = await create()
  await discard(fs, '/kms', LEDGER_NAME)
  await t.throwsAsync(
    openKms({
      place: PLACE,
      passphrase,
      fs,
      policy: { platforms: [], images: [] },
      clock: nodeClock,
      random: nodeRandom,
    }),
    { code: 'ERR_LEDGER_MISSING' },
  )
  await t.throwsAsync(restore(false), { code: 'ERR_LEDGER_MISSING' })
  t.like(await restore(true), { ledger: 'new', identity: made.identity })
  t.like(await restore(true), { ledger: 'kept', identity: made.identity })
})

test('a keyring beside another KMS’s ledger is refused', async (t) => {
  const { create, restore } = await makeDisk()
  await create()
  await create({ directory: '/kms-2', custody: '/custody/keyring-2.age' })
  await t.throwsAsync(restore(true, { directory: '/kms', custody: '/custody/keyring-2.age' }), {
    code: 'ERR_LEDGER_DAMAGED',
  })
})

test('custody whose place is not there is said, not made', async (t) => {
  const { fs, create } = await makeDisk()
  await t.throwsAsync(create({ directory: '/kms', custody: '/not-mounted/keyring.age' }), {
    code: 'ERR_STORE_UNWRITABLE',
  })
  await t.throwsAsync(fs.list('/not-mounted'))
})

const keysOf = ({ keys }: KmsIdentity): string[] => keys.map(({ key }) => key)

test('a rotation makes a newest root key, and the older ones stay to open', async (t) => {
  const { create, restore, rotate } = await makeDisk()
  const made = await create()
  const rotated = await rotate()
  t.deepEqual(keysOf(rotated), ['root@2', 'root@1'])
  t.deepEqual(rotated.identity, made.identity)
  t.is(rotated.keys[1]?.recipient, made.keys[0]?.recipient)
  t.deepEqual((await restore(false)).keys, rotated.keys)
  await rotate()
  t.deepEqual(keysOf(await restore(false)), ['root@3', 'root@2', 'root@1'])
})

test('a rotation keeps passphrase and work factor', async (t) => {
  const { fs, create, rotate } = await makeDisk()
  await create()
  await rotate()
  const file = await readWhole(fs, '/custody/keyring.age', 10_000)
  t.is(Keyring.workFactor(file ?? new Uint8Array(0)), 10)
})

test('case 16: a crash at any step of a rotation leaves the keyring from before it or after it', async (t) => {
  const dry = await makeDisk()
  await dry.create()
  const count = await countOperations(dry.fs, () => dry.rotate())
  const outcomes = new Set<number>()
  for (const stop of stopsWithin(count)) {
    const disk = await makeDisk()
    const made = await disk.create()
    t.is(await stopAndRestart(disk, stop, () => disk.rotate()), undefined)
    const found = await disk.restore(false)
    t.is(found.keys.at(-1)?.recipient, made.keys[0]?.recipient)
    outcomes.add(found.keys.length)
  }
  t.deepEqual(outcomes, new Set([1, 2]))
})

test('a rotation takes the place: a KMS that runs there answers nothing more', async (t) => {
  const { fs, create, rotate } = await makeDisk()
  const { identity } = await create()
  const running = await FileLedger.open(fs, '/kms', identity)
  await rotate()
  await t.throwsAsync(running.read(parseFlowId('a')), { code: 'ERR_LEDGER_TAKEN' })
})

test('of two rotations at once, none is lost that was acknowledged', async (t) => {
  const counts: number[] = []
  for (const path of ['/kms/ledger.log', '/custody/keyring.age'])
    for (const count of [1, 2]) {
      const { fs, create, rotate, restore } = await makeDisk()
      await create()
      const told: KmsIdentity[] = []
      const between = interrupted(fs, path, count, async () => told.push(await rotate()))
      const options = { place: PLACE, passphrase, fs: between, random: nodeRandom }
      await rotateKeyring(options).then(
        (identity) => told.push(identity),
        () => undefined,
      )
      const { keys } = await restore(false)
      for (const { recipient } of told.flatMap((identity) => identity.keys))
        t.true(
          keys.some((kept) => kept.recipient === recipient),
          `${path} ${String(count)}`,
        )
      counts.push(told.length)
    }
  t.true(counts.includes(2) && counts.includes(1))
})

test('a KMS that read its keyring before a rotation and took the place after it does not serve', async (t) => {
  const { fs, create, rotate } = await makeDisk()
  await create()
  const policy = { platforms: [], images: [] }
  const options = { place: PLACE, passphrase, policy, clock: nodeClock, random: nodeRandom }
  await t.throwsAsync(openKms({ ...options, fs: interrupted(fs, '/kms/ledger.log', 1, rotate) }), {
    code: 'ERR_KMS_FAILED',
    message: /rotated/,
  })
  const opened = await openKms({ ...options, fs })
  t.is(opened.keys.length, 2)
  await opened.close()
})

test('a rotation whose place another process takes before it is done is not acknowledged', async (t) => {
  const { fs, create } = await makeDisk()
  const { identity } = await create()
  const take = async () => (await FileLedger.open(fs, '/kms', identity)).close()
  const between = interrupted(fs, '/custody/.keyring.age.tmp', 1, take)
  await t.throwsAsync(rotateKeyring({ place: PLACE, passphrase, fs: between, random: nodeRandom }), {
    code: 'ERR_LEDGER_TAKEN',
  })
})
