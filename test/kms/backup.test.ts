import test from 'ava'
import { SimulatedClock } from '../../faults/index.js'
import { decodeBackup, encodeBackup, type BackupPart } from '../../kms/backup-file.js'
import { createBackup, openBackupBy } from '../../kms/backup.js'
import { FileLedger, LEDGER_NAME } from '../../kms/file-ledger.js'
import { createKms, openKeyring, prepareDirectory, restoreKms } from '../../kms/place.js'
import { changeKeyring, rotateKeyring } from '../../kms/change-keys.js'
import { withChange } from '../../kms/root-keys.js'
import { planRestore, type RestoreOptions } from '../../kms/restore.js'
import { asciiBytes, concatBytes, copyBytes, toHex, type Bytes } from '../../protocol/bytes.js'
import { nodeRandom, sha256 } from '../../protocol/crypto/primitives.js'
import { Secret } from '../../protocol/crypto/secret.js'
import { parseFlowId } from '../../protocol/names.js'
import { discard, publish, readWhole } from '../../storage/index.js'
import { digestOf } from './attested-client.js'
import { receiptsIn } from './receipts-in.js'
import { flowState, headOf } from './flow-state.js'
import { makeFaultyDisk } from '../storage/faulty-disk.js'
import { countOperations, stopAndRestart, stopsWithin } from '../storage/faulty-disk.js'

const passphrase = Secret.take(asciiBytes('correct horse'))
const wrong = Secret.take(asciiBytes('battery staple'))
const HERE = { directory: '/kms', custody: '/custody/keyring.age' }
const THERE = { directory: '/kms-2', custody: '/custody-2/keyring.age' }
const POLICY = asciiBytes(JSON.stringify({ platforms: [], images: [] }))
const BACKUP = '/backups/today'

const makeDisk = async () => {
  const { fs, setFault } = makeFaultyDisk()
  const clock = new SimulatedClock(Date.UTC(2025, 0, 1))
  for (const path of ['/custody', '/custody-2', '/kms', '/kms-2', '/backups']) await prepareDirectory(fs, path)
  const made = await createKms({ place: HERE, passphrase, fs, random: nodeRandom, logN: 1 })
  const base = { place: HERE, passphrase, fs, clock }
  /** Moves a flow to an epoch. */
  const commit = async (name: string, epoch: number, place = HERE): Promise<void> => {
    const ledger = await FileLedger.open(fs, place.directory, made.identity)
    const flow = parseFlowId(name)
    const state = await ledger.read(flow)
    const head = epoch === 0 ? null : headOf(epoch)
    await ledger.compareAndSwap(flow, state, flowState({ incarnation: 1, head }))
    await ledger.close()
  }
  const backup = (path = BACKUP, isForced = false) => createBackup({ ...base, policy: POLICY, path, isForced })
  const plan = (bytes: Bytes, options: Partial<RestoreOptions> = {}) =>
    planRestore({ ...base, place: THERE, backup: bytes, ...options })
  const restore = async (bytes: Bytes, options: Partial<RestoreOptions> = {}, isDowngrade = false): Promise<void> => {
    using planned = await plan(bytes, options)
    await planned.commit({ isDowngrade })
  }
  const rotate = (place = HERE) => rotateKeyring({ place, passphrase, fs, random: nodeRandom })
  const check = (place = THERE) => restoreKms({ place, passphrase, fs, newLedger: false })
  return {
    fs,
    clock,
    made,
    commit,
    backup,
    plan,
    restore,
    rotate,
    check,
    setFault,
  }
}

test('a backup has keyring, log and policy, and says whose keys and which flows; restored elsewhere it is the same KMS', async (t) => {
  const { fs, made, commit, backup, plan, rotate, check } = await makeDisk()
  await commit('flow-1', 3)
  await rotate()
  const bytes = await backup()
  t.deepEqual(await readWhole(fs, BACKUP, 1e6), bytes)
  const before = await fs.list('/kms-2')
  using planned = await plan(bytes, { policyPath: '/kms-2/policy.json' })
  t.deepEqual(planned.downgrades, [])
  t.deepEqual(await fs.list('/kms-2'), before)
  const { keys, ledger, keyring } = planned.contents
  t.deepEqual(keyring.identity, made.identity)
  t.deepEqual(
    keys.map(({ key, state }) => `${key} ${state}`),
    ['root@2 enabled', 'root@1 decrypt-only'],
  )
  t.true(keys.every(({ fingerprint }) => /^[0-9a-f]{16}$/.test(fingerprint)))
  t.is(ledger.flows.get(parseFlowId('flow-1'))?.head?.epoch, 3)
  await planned.commit({ isDowngrade: false })
  t.like(await check(), { ledger: 'kept', flowCount: 1, identity: made.identity })
  t.deepEqual(await readWhole(fs, '/kms-2/policy.json', 1e6), POLICY)
})

test('a restore leaves a receipt that names the backup by its digest', async (t) => {
  const { fs, backup, plan } = await makeDisk()
  using planned = await plan(await backup())
  await planned.commit({ isDowngrade: false })
  t.like((await receiptsIn(fs, '/kms-2')).at(-1), { kind: 'restore', digest: planned.contents.digest })
})

test('a backup leaves a receipt with its digest before its file is there, which a restore over the same place does not count as lost', async (t) => {
  const { fs, backup, plan, setFault } = await makeDisk()
  const first = await backup()
  t.like((await receiptsIn(fs, '/kms')).at(-1), { kind: 'backup', digest: sha256(first) })
  using same = await plan(first, { place: HERE })
  t.deepEqual(same.downgrades, [])
  await backup(BACKUP, true)
  using older = await plan(first, { place: HERE })
  t.deepEqual(older.downgrades, ['the ledger here has 1 receipts more'])
  setFault(({ kind, path }) => (kind === 'rename' && path.startsWith('/backups') ? { fail: 'EIO' } : undefined))
  await t.throwsAsync(backup('/backups/third'), { code: 'ERR_STORE_IO' })
  t.is((await receiptsIn(fs, '/kms')).filter(({ kind }) => kind === 'backup').length, 3)
})

test('a restore that was done, and of which nobody was told, is done again', async (t) => {
  const { backup, plan } = await makeDisk()
  const bytes = await backup()
  for (const _ of [1, 2]) {
    using planned = await plan(bytes, { place: HERE })
    t.deepEqual(planned.downgrades, [])
    await planned.commit({ isDowngrade: false })
  }
})

test('a KMS that runs leaves the receipt of its backup itself, and keeps its ledger', async (t) => {
  const { fs, clock, made } = await makeDisk()
  const running = await FileLedger.open(fs, '/kms', made.identity)
  const asked: Bytes[] = []
  const recordRunning = (digest: Bytes) => {
    asked.push(digest)
    return Promise.resolve(true)
  }
  const options = { place: HERE, passphrase, fs, clock, policy: POLICY, path: BACKUP, recordRunning }
  const bytes = await createBackup(options)
  t.deepEqual(asked, [sha256(bytes)])
  await t.notThrowsAsync(running.confirm())
  await createBackup({ ...options, path: '/backups/other', recordRunning: () => Promise.resolve(false) })
  await t.throwsAsync(running.confirm(), { code: 'ERR_LEDGER_TAKEN' })
})

test('a keyring that has changed and changed back since the backup is newer than it', async (t) => {
  const { backup, plan, rotate, fs, clock } = await makeDisk()
  await rotate()
  const bytes = await backup()
  const options = { place: HERE, passphrase, fs, clock, random: nodeRandom }
  for (const kind of ['disable', 'enable'] as const)
    await changeKeyring(options, (keys) => withChange(keys, 'root@1', { kind }))
  using planned = await plan(bytes, { place: HERE })
  t.true(planned.downgrades.includes('the keyring here has changed 2 times since'))
  await t.throwsAsync(planned.commit({ isDowngrade: false }), { code: 'ERR_DOWNGRADE' })
})

test('a backup is not written over another file, nor made where ledger or policy is missing or another’s', async (t) => {
  const { fs, backup, made } = await makeDisk()
  await backup()
  await t.throwsAsync(backup(), { code: 'ERR_FILE_EXISTS' })
  await backup(BACKUP, true)
  await t.throwsAsync(backup('/nowhere/today'), { code: 'ERR_STORE_UNWRITABLE' })
  const options = { place: HERE, passphrase, fs, clock: new SimulatedClock(), path: '/backups/other' }
  await t.throwsAsync(createBackup({ ...options, policy: asciiBytes('{') }), { code: 'ERR_CONFIG_INVALID' })
  await t.throwsAsync(createBackup({ ...options, policy: POLICY, passphrase: wrong }), { code: 'ERR_PASSPHRASE_WRONG' })
  await FileLedger.create(fs, '/kms', digestOf(9))
  await t.throwsAsync(createBackup({ ...options, policy: POLICY }), { code: 'ERR_LEDGER_DAMAGED' })
  await discard(fs, '/kms', LEDGER_NAME)
  await t.throwsAsync(createBackup({ ...options, policy: POLICY }), { code: 'ERR_LEDGER_MISSING' })
  t.is(made.keys.length, 1)
})

test('a log that is being written as it is copied is backed up to its last whole frame', async (t) => {
  const { fs, commit, backup, restore, check } = await makeDisk()
  await commit('flow-1', 1)
  const log = (await readWhole(fs, '/kms/ledger.log', 1e6)) ?? new Uint8Array(0)
  await publish(fs, '/kms', LEDGER_NAME, concatBytes(log, new Uint8Array(5)))
  await restore(await backup())
  t.is((await check()).flowCount, 1)
})

test('a backup that is cut, changed anywhere, or put together of two is refused', async (t) => {
  const { made, commit, backup } = await makeDisk()
  const first = await backup()
  await commit('flow-1', 3)
  const second = await backup('/backups/later')
  const refused = async (claimed: Bytes): Promise<void> => {
    await t.throwsAsync(openBackupBy(claimed, passphrase), { code: 'ERR_BACKUP_INVALID' })
  }
  for (let size = 0; size < first.length; size += 37) await refused(first.slice(0, size))
  for (let index = 0; index < first.length; index += 13) {
    const changed = copyBytes(first)
    changed[index] = (changed[index] ?? 0) ^ 1
    await refused(changed)
  }
  await refused(concatBytes(first, new Uint8Array(1)))
  // A part of another moment, under a head that nobody with the keyring signed.
  const [old, late] = [decodeBackup(first), decodeBackup(second)]
  const parts = new Map<BackupPart, Bytes>([...late.parts, ['ledger', old.parts.get('ledger') ?? new Uint8Array(0)]])
  await refused(encodeBackup({ identity: made.identity, timeMs: 0, parts }, () => new Uint8Array(64)))
  const without = new Map(late.parts)
  without.delete('policy')
  const { keyring } = await openBackupBy(first, passphrase)
  const sign = (message: Uint8Array) => keyring.sign(message)
  await refused(encodeBackup({ ...late, parts: without }, sign))
  await refused(encodeBackup({ ...late, parts: new Map([...late.parts, ['ledger', new Uint8Array(9)]]) }, sign))
  t.is((await openBackupBy(second, passphrase)).ledger.flowCount, 1)
})

test('a keyring of another KMS does not get into a backup that a KMS signed', async (t) => {
  const [one, other] = [await makeDisk(), await makeDisk()]
  const [mine, foreign] = [decodeBackup(await one.backup()), decodeBackup(await other.backup())]
  const { keyring } = await openBackupBy(await one.backup(BACKUP, true), passphrase)
  const parts = new Map<BackupPart, Bytes>([...mine.parts, ['keyring', foreign.parts.get('keyring') ?? POLICY]])
  const mixed = encodeBackup({ ...mine, parts }, (message) => keyring.sign(message))
  await t.throwsAsync(openBackupBy(mixed, passphrase), { code: 'ERR_BACKUP_INVALID', message: /several KMSs/ })
})

test('a downgrade is refused by name: a key version, a state of a flow, a flow, receipts; the operator’s word allows it', async (t) => {
  const { fs, commit, backup, plan, restore, rotate } = await makeDisk()
  await commit('flow-1', 3)
  const old = await backup()
  await commit('flow-1', 4)
  await commit('flow-2', 0)
  await rotate()
  const here = { place: HERE }
  using planned = await plan(old, here)
  t.deepEqual(planned.downgrades.slice(0, 4), [
    'the keyring here has root@2, the backup’s has not',
    'root@1 is decrypt-only here, enabled in the backup',
    'flow flow-1 is at epoch 4 of incarnation 1 here, at epoch 3 of incarnation 1 in the backup',
    'the backup does not know flow flow-2',
  ])
  const keyring = await readWhole(fs, HERE.custody, 1e6)
  await t.throwsAsync(planned.commit({ isDowngrade: false }), { code: 'ERR_DOWNGRADE', message: /root@2/ })
  t.deepEqual(await readWhole(fs, HERE.custody, 1e6), keyring)
  await restore(old, here, true)
  using opened = await openKeyring({ place: HERE, passphrase, fs })
  t.is(opened.rootKeys.length, 1)
  t.regex((await receiptsIn(fs, '/kms')).at(-1)?.reason ?? '', /root@2/)
  // What is here is behind the backup: nothing is lost.
  await commit('flow-1', 4)
  const newer = await backup('/backups/newer')
  await restore(old, here, true)
  using upgrade = await plan(newer, here)
  t.deepEqual(upgrade.downgrades, [])
})

test('a flow that is destroyed in the place is not given up unsaid', async (t) => {
  const { fs, made, commit, backup, plan } = await makeDisk()
  await commit('flow-1', 3)
  const old = await backup()
  const ledger = await FileLedger.open(fs, '/kms', made.identity)
  const flow = parseFlowId('flow-1')
  const state = await ledger.read(flow)
  if (state !== undefined) await ledger.compareAndSwap(flow, state, { ...state, destroyed: true })
  await ledger.close()
  using planned = await plan(old, { place: HERE })
  t.deepEqual(planned.downgrades, ['flow flow-1 is destroyed here, and is not in the backup'])
})

test('another KMS’s place is never taken, and a keyring that cannot be compared only on the operator’s word', async (t) => {
  const { fs, backup, plan } = await makeDisk()
  const bytes = await backup()
  await createKms({ place: THERE, passphrase, fs, random: nodeRandom, logN: 1 })
  await t.throwsAsync(plan(bytes), { code: 'ERR_KEYRING_EXISTS', message: /another KMS/ })
  await discard(fs, '/custody-2', 'keyring.age')
  await t.throwsAsync(plan(bytes), { code: 'ERR_KEYRING_EXISTS', message: /ledger is another KMS/ })
  await discard(fs, '/kms-2', LEDGER_NAME)
  await createKms({ place: { ...THERE, directory: '/custody' }, passphrase: wrong, fs, random: nodeRandom, logN: 1 })
  using planned = await plan(bytes)
  t.regex(planned.downgrades.join(), /another passphrase/)
  await publish(fs, '/custody-2', 'keyring.age', new Uint8Array(100))
  await publish(fs, '/kms-2', LEDGER_NAME, new Uint8Array(100))
  using mended = await plan(bytes)
  t.deepEqual(mended.downgrades, [])
  await publish(fs, '/kms-2', 'policy.json', asciiBytes('{}'))
  await t.throwsAsync(plan(bytes, { policyPath: '/kms-2/policy.json' }), { code: 'ERR_FILE_EXISTS' })
})

test('a KMS that runs where a backup is restored answers nothing more', async (t) => {
  const { fs, made, backup, restore } = await makeDisk()
  const bytes = await backup()
  const running = await FileLedger.open(fs, '/kms', made.identity)
  await restore(bytes, { place: HERE }, true)
  await t.throwsAsync(running.read(parseFlowId('flow-1')), { code: 'ERR_LEDGER_TAKEN' })
})

test('who the custodians are goes along, and does not stay where the restored keyring has none', async (t) => {
  const { fs, backup, restore, clock } = await makeDisk()
  const shared = { directory: '/custody', custody: '/custody/shared.age' }
  let text: Bytes[] = []
  const deliver = (shares: readonly { text: Secret }[]): Promise<void> => {
    text = shares.map((share) => share.text.expose(copyBytes))
    return Promise.resolve()
  }
  await createKms({ place: shared, fs, random: nodeRandom, logN: 1, count: 2, threshold: 2, deliver })
  const { ShareCollector } = await import('../../kms/custodians.js')
  const { readCustodians } = await import('../../kms/custody-files.js')
  const custodians = await readCustodians(shared, fs)
  if (custodians === undefined) throw new Error('no custodians')
  const collector = new ShareCollector(custodians)
  for (const share of text) collector.submit(share)
  const joined = await collector.join()
  const options = { place: shared, passphrase: joined, fs, clock }
  const bytes = await createBackup({ ...options, policy: POLICY, path: '/backups/shared' })
  await restore(bytes, { passphrase: joined })
  t.deepEqual(await readCustodians(THERE, fs), custodians)
  await discard(fs, '/custody-2', 'keyring.age')
  await discard(fs, '/kms-2', LEDGER_NAME)
  await restore(await backup())
  t.is(await readCustodians(THERE, fs), undefined)
})

test('a crash at any step of a backup leaves the file whole or not at all', async (t) => {
  const dry = await makeDisk()
  const count = await countOperations(dry.fs, () => dry.backup())
  t.true(count > 8)
  for (const stop of stopsWithin(count)) {
    const disk = await makeDisk()
    const made = await stopAndRestart(disk, stop, () => disk.backup())
    const found = await readWhole(disk.fs, BACKUP, 1e6)
    if (made !== undefined) t.deepEqual(found, made)
    if (found === undefined) await disk.backup()
    else (await openBackupBy(found, passphrase))[Symbol.dispose]()
  }
})

test('a crash at any step of a restore leaves a place that refuses to start or starts whole, and a repeat finishes', async (t) => {
  const setUp = async () => {
    const disk = await makeDisk()
    await disk.commit('flow-1', 3)
    const bytes = await disk.backup()
    const restore = (isDowngrade = false) => disk.restore(bytes, { policyPath: '/kms-2/policy.json' }, isDowngrade)
    return { ...disk, restore }
  }
  const dry = await setUp()
  const outcomes = new Set<string>()
  for (const stop of stopsWithin(await countOperations(dry.fs, () => dry.restore()))) {
    const disk = await setUp()
    const { fs, made, check, restore } = disk
    await stopAndRestart(disk, stop, () => restore())
    const state = await check().then(
      ({ identity, flowCount }) => `${String(toHex(identity) === toHex(made.identity))} ${String(flowCount)}`,
      (error: unknown) => (error as { code: string }).code,
    )
    outcomes.add(state)
    await restore(true)
    t.like(await check(), { flowCount: 1, identity: made.identity })
    t.deepEqual(await readWhole(fs, '/kms-2/policy.json', 1e6), POLICY)
  }
  t.deepEqual(outcomes, new Set(['ERR_KEYRING_MISSING', 'ERR_LEDGER_MISSING', 'true 1']))
})
