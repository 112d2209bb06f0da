import test from 'ava'
import type { DiskImage } from '../../faults/disk.js'
import { hasKeyring, readCustodians } from '../../kms/custody-files.js'
import type { Custody } from '../../kms/custody.js'
import { ShareCollector } from '../../kms/custodians.js'
import { rotateKeyring } from '../../kms/change-keys.js'
import { createBackup, custodiansOf } from '../../kms/backup.js'
import { FileLedger } from '../../kms/file-ledger.js'
import { Keyring } from '../../kms/keyring.js'
import { createKms, openKeyring, prepareDirectory } from '../../kms/place.js'
import { rekeyKms } from '../../kms/rekey.js'
import { planRestore } from '../../kms/restore.js'
import { asciiBytes, copyBytes, type Bytes } from '../../protocol/bytes.js'
import type { KeyriseError } from '../../protocol/errors.js'
import { nodeRandom } from '../../protocol/crypto/primitives.js'
import { Secret } from '../../protocol/crypto/secret.js'
import { nodeClock, readWhole } from '../../storage/index.js'
import {
  countOperations,
  imageOf,
  interrupted,
  makeFaultyDisk,
  stopAndRestart,
  stopsWithin,
} from '../storage/faulty-disk.js'
import { receiptsIn } from './receipts-in.js'

const PLACE = { directory: '/kms', custody: '/custody/keyring.age' }
const KEYRING_BYTES_MAX = 1 << 20
const OLD = Secret.take(asciiBytes('correct horse'))
const NEW = Secret.take(asciiBytes('battery staple'))

/** A disk for a KMS, and whoever keeps what opens it. @param given - shares by splitting, the newest last. */
const diskOf = (image?: DiskImage, given: Bytes[][] = []) => {
  const { fs, setFault } = makeFaultyDisk(image)
  const shared = (threshold: number, count = 3): Custody => ({
    count,
    threshold,
    deliver: (shares) => {
      given.push(shares.map(({ text }) => text.expose(copyBytes)))
      return Promise.resolve()
    },
  })
  const base = { place: PLACE, fs, random: nodeRandom }
  /** By what the files say that opens it. */
  const passphraseNow = async (plain: readonly Secret[]): Promise<Secret> => {
    const custodians = await readCustodians(PLACE, fs)
    if (custodians !== undefined) {
      using collector = new ShareCollector(custodians)
      for (const shares of given)
        for (const share of shares)
          try {
            collector.submit(share)
          } catch {
            // Of another splitting.
          }
      return await collector.join()
    }
    const file = (await readWhole(fs, PLACE.custody, KEYRING_BYTES_MAX)) ?? new Uint8Array(0)
    for (const each of plain)
      try {
        Keyring.open(file, each)[Symbol.dispose]()
        return each.clone()
      } catch {
        // Another's turn.
      }
    throw new Error('no passphrase opens it')
  }
  const rekey = async (next: Custody, passphrase = OLD, logN?: number) => rekeyKms({ ...base, passphrase, next, logN })
  return { fs, setFault, given, shared, base, passphraseNow, rekey }
}

/** The same with a KMS on it. */
const makeDisk = async () => {
  const disk = diskOf()
  for (const directory of ['/custody', '/kms', '/backups']) await prepareDirectory(disk.fs, directory)
  const { identity } = await createKms({ ...disk.base, passphrase: OLD, logN: 1 })
  return { ...disk, identity }
}

/** Another disk that holds the same. */
const copyOf = ({ fs, given, identity }: Awaited<ReturnType<typeof makeDisk>>) => ({
  ...diskOf(imageOf(fs), [...given]),
  identity,
})

test('a passphrase for another: the old one opens nothing more, the keys stay, and a receipt says so', async (t) => {
  const { fs, rekey, identity, base } = await makeDisk()
  const before = await rotateKeyring({ ...base, passphrase: OLD })
  const after = await rekey({ passphrase: NEW })
  t.deepEqual(after, before)
  await t.throwsAsync(openKeyring({ ...base, passphrase: OLD }), { code: 'ERR_PASSPHRASE_WRONG' })
  using keyring = await openKeyring({ ...base, passphrase: NEW })
  t.deepEqual(keyring.identity, identity)
  t.like((await receiptsIn(fs, '/kms')).at(-1), { kind: 'rekey', reason: 'opened by one passphrase' })
  t.is(Keyring.workFactor((await readWhole(fs, PLACE.custody, KEYRING_BYTES_MAX)) ?? new Uint8Array(0)), 1)
})

test('a work factor that is asked for takes the place of the old one', async (t) => {
  const { fs, rekey } = await makeDisk()
  await rekey({ passphrase: NEW }, OLD, 3)
  t.is(Keyring.workFactor((await readWhole(fs, PLACE.custody, KEYRING_BYTES_MAX)) ?? new Uint8Array(0)), 3)
})

test('custodians for a passphrase, others for them, and a passphrase again', async (t) => {
  const { fs, rekey, shared, passphraseNow, base, given } = await makeDisk()
  await rekey(shared(2))
  t.like(await readCustodians(PLACE, fs), { threshold: 2 })
  t.like((await receiptsIn(fs, '/kms')).at(-1), { kind: 'rekey', reason: 'opened by 2 of 3 custodians' })
  await t.throwsAsync(openKeyring({ ...base, passphrase: OLD }), { code: 'ERR_PASSPHRASE_WRONG' })
  using first = await passphraseNow([])
  await rekey(shared(3, 4), first)
  const custodians = await readCustodians(PLACE, fs)
  t.is(custodians?.commitments.length, 4)
  if (custodians === undefined) return
  using collector = new ShareCollector(custodians)
  t.throws(() => collector.submit(given[0]?.[0] ?? new Uint8Array(0)), {
    code: 'ERR_SHARE_INVALID',
    message: /share 1 of an earlier splitting/,
  })
  using second = await passphraseNow([])
  t.false(second.equals(first))
  await rekey({ passphrase: NEW }, second)
  t.is(await readCustodians(PLACE, fs), undefined)
  t.deepEqual(
    (await fs.list('/custody')).map(({ name }) => name),
    ['keyring.age'],
  )
  ;(await openKeyring({ ...base, passphrase: NEW }))[Symbol.dispose]()
})

test('a wrong passphrase, custodians that cannot be, and shares that cannot be handed out change nothing', async (t) => {
  const { fs, rekey, base } = await makeDisk()
  const before = await readWhole(fs, PLACE.custody, KEYRING_BYTES_MAX)
  const deliver = () => Promise.reject(new Error('no paper'))
  await t.throwsAsync(rekey({ passphrase: NEW }, NEW), { code: 'ERR_PASSPHRASE_WRONG' })
  await t.throwsAsync(rekey({ count: 2, threshold: 3, deliver }), { code: 'ERR_CONFIG_INVALID' })
  await t.throwsAsync(rekey({ count: 2, threshold: 2, deliver }), { message: 'no paper' })
  t.deepEqual(await readWhole(fs, PLACE.custody, KEYRING_BYTES_MAX), before)
  t.is((await receiptsIn(fs, '/kms')).length, 1)
  ;(await openKeyring({ ...base, passphrase: OLD }))[Symbol.dispose]()
})

test('of two rekeys at once one is done after the other, and what the files say opens the keyring', async (t) => {
  const told = new Set<string>()
  for (const name of ['/kms/ledger.log', '/custody/keyring.age', '/custody/keyring.age.custodians-next'])
    for (let [count, isHit] = [1, true]; isHit; count++) {
      const { fs, base, shared, rekey, passphraseNow } = await makeDisk()
      isHit = false
      let other: string | undefined
      const between = interrupted(fs, name, count, async () => {
        isHit = true
        other = await rekey(shared(3)).then(
          () => 'other',
          () => undefined,
        )
      })
      const options = { ...base, fs: between, passphrase: OLD, next: shared(2) }
      const own = await rekeyKms(options).then(
        () => 'own',
        () => undefined,
      )
      told.add([own, other].join())
      using passphrase = await passphraseNow([OLD])
      ;(await openKeyring({ ...base, passphrase }))[Symbol.dispose]()
      if (own === undefined && other !== undefined) t.like(await readCustodians(PLACE, fs), { threshold: 3 })
    }
  t.true(told.has('own,') && told.has(',other'))
})

test('a rekey whose place another process takes before it is done is not acknowledged', async (t) => {
  const { fs, base, identity } = await makeDisk()
  const take = async () => (await FileLedger.open(fs, '/kms', identity)).close()
  const between = interrupted(fs, '/custody/.keyring.age.tmp', 1, take)
  await t.throwsAsync(rekeyKms({ ...base, fs: between, passphrase: OLD, next: { passphrase: NEW } }), {
    code: 'ERR_LEDGER_TAKEN',
  })
})

test('a backup during a rekey has custodians and keyring from before it, or both from after it', async (t) => {
  const policy = asciiBytes(JSON.stringify({ platforms: [], images: [] }))
  for (const name of ['keyring.age', 'keyring.age.custodians', 'keyring.age.custodians-next'])
    for (const count of [1, 2]) {
      const { fs, shared, rekey, passphraseNow } = await makeDisk()
      await rekey(shared(2))
      using before = await passphraseNow([])
      const between = interrupted(fs, `/custody/${name}`, count, () => rekey(shared(3), before))
      const options = { place: PLACE, passphrase: before, clock: nodeClock, policy, path: '/backups/b' }
      const made = await createBackup({ ...options, fs: between }).catch((error: unknown) => error as KeyriseError)
      // Its keyring opens by what the operator gave, or it is none.
      if (made instanceof Uint8Array) t.is(custodiansOf(made)?.threshold, 2)
      else t.is(made.code, 'ERR_PASSPHRASE_WRONG')
    }
})

/** From what to what, as makeDisk’s helpers have it. */
const CHANGES = {
  'a passphrase to a passphrase': [false, false],
  'a passphrase to custodians': [false, true],
  'custodians to a passphrase': [true, false],
  'custodians to others': [true, true],
} as const

for (const [title, [wasShared, isShared]] of Object.entries(CHANGES))
  test(`a crash at any step of a rekey, ${title}: what the files say opens the keyring, and a rotation on top keeps it so`, async (t) => {
    const before = await makeDisk()
    if (wasShared) await before.rekey(before.shared(2))
    const first = await before.passphraseNow([OLD])
    const start = () => {
      const disk = copyOf(before)
      return { disk, rekey: () => disk.rekey(isShared ? disk.shared(3) : { passphrase: NEW }, first) }
    }
    const dry = start()
    const count = await countOperations(dry.disk.fs, dry.rekey)
    t.true(count > 8)
    const ends = new Set<string>()
    for (const stop of stopsWithin(count)) {
      const { disk, rekey } = start()
      const made = await stopAndRestart(disk, stop, rekey)
      t.true(await hasKeyring(PLACE, disk.fs))
      const custodians = await readCustodians(PLACE, disk.fs)
      using passphrase = await disk.passphraseNow([OLD, NEW])
      using keyring = await openKeyring({ ...disk.base, passphrase })
      t.deepEqual(keyring.identity, disk.identity)
      ends.add(custodians === undefined ? String(passphrase.equals(NEW)) : String(custodians.threshold))
      if (made !== undefined) t.is(custodians?.threshold, isShared ? 3 : undefined)
      await rotateKeyring({ ...disk.base, passphrase })
      t.deepEqual(await readCustodians(PLACE, disk.fs), custodians)
      using again = await disk.passphraseNow([OLD, NEW])
      t.true(again.equals(passphrase))
    }
    t.deepEqual(ends, new Set([wasShared ? '2' : 'false', isShared ? '3' : 'true']))
  })

test('a backup that is made after a crash in a rekey has the custodians of its keyring, and puts both in their place', async (t) => {
  const before = await makeDisk()
  const start = () => {
    const disk = copyOf(before)
    return { disk, rekey: () => disk.rekey(disk.shared(2)) }
  }
  const dry = start()
  const policy = asciiBytes(JSON.stringify({ platforms: [], images: [] }))
  for (const stop of stopsWithin(await countOperations(dry.disk.fs, dry.rekey))) {
    const { disk, rekey } = start()
    await stopAndRestart(disk, stop, rekey)
    const { fs, base } = disk
    const custodians = await readCustodians(PLACE, fs)
    using passphrase = await disk.passphraseNow([OLD])
    const options = { ...base, passphrase, clock: nodeClock }
    const backup = await createBackup({ ...options, policy, path: '/backups/b', isForced: true })
    t.deepEqual(custodiansOf(backup), custodians)
    await disk.rekey(disk.shared(3), passphrase)
    using newer = await disk.passphraseNow([])
    using plan = await planRestore({ ...options, backup })
    t.regex(plan.downgrades.join(), /opens by another passphrase/)
    await plan.commit({ isDowngrade: true })
    t.deepEqual(await readCustodians(PLACE, fs), custodians)
    await t.throwsAsync(openKeyring({ ...base, passphrase: newer }), { code: 'ERR_PASSPHRASE_WRONG' })
    ;(await openKeyring({ ...base, passphrase }))[Symbol.dispose]()
  }
})
