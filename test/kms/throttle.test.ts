import test from 'ava'
import { MemoryFileSystem, SimulatedClock } from '../../faults/index.js'
import { createKms, openKeyring, prepareDirectory } from '../../kms/place.js'
import { throttleWaitMs, WAIT_MS_MAX } from '../../kms/throttle.js'
import { asciiBytes } from '../../protocol/bytes.js'
import { nodeRandom } from '../../protocol/crypto/primitives.js'
import { Secret } from '../../protocol/crypto/secret.js'
import type { FileSystem } from '../../protocol/ports.js'
import { publish, readWhole } from '../../storage/index.js'

const place = { directory: '/kms', custody: '/custody/keyring.age' }
const right = Secret.take(asciiBytes('correct horse'))
const wrong = Secret.take(asciiBytes('battery staple'))

const makePlace = async () => {
  const fs = new MemoryFileSystem()
  const clock = new SimulatedClock(Date.UTC(2025, 0, 1))
  await prepareDirectory(fs, '/custody')
  await prepareDirectory(fs, '/kms')
  await createKms({ place, passphrase: right, fs, random: nodeRandom, logN: 10 })
  const attempt = async (passphrase: Secret, disk: FileSystem = fs): Promise<string> => {
    try {
      using keyring = await openKeyring({ place, passphrase, fs: disk, clock })
      return String(keyring.rootKeys.length)
    } catch (error) {
      return (error as { code?: string }).code ?? 'unknown'
    }
  }
  const waitMs = () => throttleWaitMs({ fs, directory: '/kms', clock })
  return { fs, clock, attempt, waitMs }
}

test('case 18: from the third wrong passphrase in a row on each doubles the wait; the right one after it ends it', async (t) => {
  const { fs, clock, attempt, waitMs } = await makePlace()
  const keyring = await readWhole(fs, place.custody, 10_000)
  const waits: number[] = []
  for (let count = 0; count < 14; count++) {
    t.is(await attempt(wrong), 'ERR_PASSPHRASE_WRONG')
    const left = await waitMs()
    waits.push(left / 1000)
    if (left > 0) {
      t.is(await attempt(right), 'ERR_PASSPHRASE_THROTTLED')
      await clock.advance(left - 1)
      t.is(await attempt(right), 'ERR_PASSPHRASE_THROTTLED')
      await clock.advance(1)
    }
  }
  t.deepEqual(waits, [0, 0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900])
  t.is(await attempt(right), '1')
  t.is(await attempt(wrong), 'ERR_PASSPHRASE_WRONG')
  t.is(await attempt(wrong), 'ERR_PASSPHRASE_WRONG')
  t.is(await waitMs(), 0)
  t.deepEqual(await readWhole(fs, place.custody, 10_000), keyring)
})

test('case 18: neither a restart nor a power cut forgets a wrong passphrase that was answered', async (t) => {
  const { fs, attempt, waitMs } = await makePlace()
  for (let count = 0; count < 4; count++) {
    await attempt(wrong)
    fs.restart(() => false)
    if (count === 2) await t.notThrowsAsync(async () => t.is(await waitMs(), 1000))
  }
  t.is(await attempt(right), 'ERR_PASSPHRASE_THROTTLED')
})

test('case 18: a wrong passphrase that cannot be counted is not answered', async (t) => {
  const { fs, attempt } = await makePlace()
  const full: FileSystem = {
    open: (path, mode) =>
      mode === 'read' ? fs.open(path, mode) : Promise.reject(Object.assign(new Error('full'), { code: 'ENOSPC' })),
    rename: (from, to) => fs.rename(from, to),
    unlink: (path) => fs.unlink(path),
    makeDirectory: (path) => fs.makeDirectory(path),
    list: (path) => fs.list(path),
    syncDirectory: (path) => fs.syncDirectory(path),
  }
  t.is(await attempt(wrong, full), 'ERR_STORE_FULL')
  t.is(await attempt(right, full), '1')
})

test('case 18: a clock that is set back makes no wait longer than it is, and one set forward ends it', async (t) => {
  const { clock, attempt, waitMs } = await makePlace()
  for (let count = 0; count < 3; count++) await attempt(wrong)
  clock.jump(-3_600_000)
  t.is(await waitMs(), 1000)
  t.is(await attempt(right), 'ERR_PASSPHRASE_THROTTLED')
  await clock.advance(1000)
  t.is(await waitMs(), 0)
  await attempt(wrong)
  t.is(await attempt(right), 'ERR_PASSPHRASE_THROTTLED')
  clock.jump(3_600_000)
  t.is(await attempt(right), '1')
})

test('case 18: a damaged count is the longest wait, from now on, and not none', async (t) => {
  const { fs, clock, attempt, waitMs } = await makePlace()
  await attempt(wrong)
  await publish(fs, '/kms', 'passphrase-attempts', new Uint8Array(9))
  t.is(await attempt(right), 'ERR_PASSPHRASE_THROTTLED')
  t.is(await waitMs(), WAIT_MS_MAX)
  await clock.advance(WAIT_MS_MAX)
  t.is(await attempt(right), '1')
})
