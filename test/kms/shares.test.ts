import test from 'ava'
import { MemoryFileSystem, SimulatedClock } from '../../faults/index.js'
import { Metrics } from '../../kms/metrics.js'
import { KmsControl } from '../../kms/control.js'
import type { SharedCustody } from '../../kms/custody.js'
import { readCustodians } from '../../kms/custody-files.js'
import { ShareCollector, type CustodianSet } from '../../kms/custodians.js'
import { createKms } from '../../kms/place.js'
import { rekeyKms } from '../../kms/rekey.js'
import { InlineUnsealer } from '../../kms/unseal.js'
import { nodeRandom } from '../../protocol/crypto/primitives.js'
import { Secret } from '../../protocol/crypto/secret.js'
import { copyBytes, type Bytes } from '../../protocol/bytes.js'

/** A sealed KMS whose passphrase two of three custodians make. */
const world = async () => {
  const [fs, clock] = [new MemoryFileSystem(), new SimulatedClock()]
  await fs.makeDirectory('/kms')
  const place = { directory: '/kms' }
  const shares: Bytes[] = []
  await createKms({
    ...{ place, fs, random: nodeRandom, logN: 10, count: 3, threshold: 2 },
    deliver: (made) => {
      shares.push(...made.map(({ text }) => text.expose(copyBytes)))
      return Promise.resolve()
    },
  })
  const control = await KmsControl.sealed({
    metrics: new Metrics(),
    ...{ place, fs, clock, random: nodeRandom, policy: { platforms: [], images: [] } },
    startUnsealer: (keys) => Promise.resolve(new InlineUnsealer(keys)),
  })
  const [one, two, three] = shares as [Bytes, Bytes, Bytes]
  return { control, clock, fs, place, one, two, three }
}

test('shares that come one after the other unlock a running KMS, and a bad one is named and changes nothing', async (t) => {
  const { control, one, two, three } = await world()
  t.deepEqual(await control.submitShare(three), { submitted: [3], threshold: 2, count: 3 })
  const bad = copyBytes(two)
  bad[bad.length - 1] = bad.at(-1) === 0x71 ? 0x70 : 0x71
  await t.throwsAsync(control.submitShare(bad), { code: 'ERR_SHARE_INVALID' })
  t.deepEqual(await control.submitShare(three), { submitted: [3], threshold: 2, count: 3 })
  t.like(control.status(), { state: 'sealed', submitted: [3] })
  t.deepEqual(await control.submitShare(one), { submitted: [1, 3], threshold: 2, count: 3 })
  t.like(control.status(), { state: 'unlocked', submitted: [] })
  await t.throwsAsync(control.submitShare(two), { code: 'ERR_KMS_UNLOCKED' })
  await control.seal()
  t.deepEqual((await control.submitShare(two)).submitted, [2])
  await control.close()
})

test('a share waits ten minutes for the next, then it is forgotten', async (t) => {
  const { control, clock, one, two, three } = await world()
  await control.submitShare(one)
  await clock.advance(9 * 60_000)
  t.deepEqual((await control.submitShare(one)).submitted, [1])
  await clock.advance(10 * 60_000)
  t.deepEqual((await control.submitShare(two)).submitted, [2])
  t.is(control.status().state, 'sealed')
  t.deepEqual((await control.submitShare(three)).submitted, [2, 3])
  t.is(control.status().state, 'unlocked')
  await control.close()
  t.deepEqual(clock.pendingMs, [])
})

test('a KMS whose passphrase nobody shares takes no share, and one that is closed forgets what it has', async (t) => {
  const { control, clock, fs, place, one } = await world()
  await control.submitShare(one)
  await control.close()
  t.deepEqual(clock.pendingMs, [])
  await t.throwsAsync(control.submitShare(one), { code: 'ERR_KMS_FAILED' })
  await fs.unlink('/kms/keyring.age.custodians')
  const other = await KmsControl.sealed({
    metrics: new Metrics(),
    ...{ place, fs, clock, random: nodeRandom, policy: { platforms: [], images: [] } },
  })
  await t.throwsAsync(other.submitShare(one), { code: 'ERR_CUSTODIANS_INVALID' })
  using passphrase = Secret.take(copyBytes(one))
  await t.throwsAsync(other.unlock(passphrase.clone()), { code: 'ERR_PASSPHRASE_WRONG' })
  await other.close()
})

test('shares of before a rekey count for nothing after it, those that were submitted already too', async (t) => {
  const { control, fs, place, one, two } = await world()
  await control.submitShare(one)
  using collector = new ShareCollector((await readCustodians(place, fs)) as CustodianSet)
  for (const share of [one, two]) collector.submit(share)
  using passphrase = await collector.join()
  const given: Bytes[] = []
  const deliver: SharedCustody['deliver'] = (made) => {
    given.push(...made.map(({ text }) => text.expose(copyBytes)))
    return Promise.resolve()
  }
  await rekeyKms({ place, fs, passphrase, random: nodeRandom, next: { count: 2, threshold: 2, deliver } })
  await t.throwsAsync(control.submitShare(two), { code: 'ERR_SHARE_INVALID', message: /earlier splitting/ })
  const [first, second] = given as [Bytes, Bytes]
  t.deepEqual((await control.submitShare(second)).submitted, [2])
  await control.submitShare(first)
  t.is(control.status().state, 'unlocked')
  await control.close()
})
