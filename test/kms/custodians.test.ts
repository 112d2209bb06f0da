import test from 'ava'
import {
  decodeCustodians,
  encodeCustodians,
  fingerprintOf,
  ShareCollector,
  splitPassphrase,
  type CustodianSet,
  type Share,
} from '../../kms/custodians.js'
import { hasKeyring, readCustodians } from '../../kms/custody-files.js'
import { createKms, openKeyring, prepareDirectory } from '../../kms/place.js'
import { asciiBytes, asciiText, concatBytes, copyBytes, type Bytes } from '../../protocol/bytes.js'
import { encodeCbor } from '../../protocol/cbor.js'
import { encodeBech32 } from '../../protocol/crypto/bech32.js'
import { nodeRandom } from '../../protocol/crypto/primitives.js'
import { digestOf } from './attested-client.js'
import { countOperations, makeFaultyDisk, stopAndRestart, stopsWithin } from '../storage/faulty-disk.js'

const IDENTITY = digestOf(7)
const textOf = ({ text }: Share): Bytes => text.expose(copyBytes)
const pick = (shares: readonly Share[], index: number): Bytes => {
  const share = shares[index]
  if (share === undefined) throw new Error('no such share')
  return textOf(share)
}
const splitFor = (count: number, threshold: number, identity = IDENTITY) =>
  splitPassphrase({ identity, count, threshold, random: nodeRandom })

test('any k of n shares give the passphrase back, in any order, and progress says whose are there', async (t) => {
  const { passphrase, shares, set } = await splitFor(5, 3)
  for (const picked of [
    [0, 1, 2],
    [4, 2, 0],
    [3, 1, 4],
  ]) {
    const collector = new ShareCollector(set)
    for (const [done, index] of picked.entries()) {
      t.false(collector.isComplete)
      const { submitted, threshold, count } = collector.submit(pick(shares, index))
      t.deepEqual([submitted.length, threshold, count], [done + 1, 3, 5])
    }
    t.deepEqual(
      collector.progress.submitted,
      picked.map((index) => index + 1).sort((a, b) => a - b),
    )
    t.true(collector.isComplete)
    t.true((await collector.join()).equals(passphrase))
    t.deepEqual(collector.progress.submitted, [])
  }
  t.regex(passphrase.expose(asciiText), /^keyrise-custody-1[a-z0-9]{58}$/)
})

test('a share twice counts once, and white space around one does not count', async (t) => {
  const { shares, set } = await splitFor(3, 2)
  const collector = new ShareCollector(set)
  collector.submit(pick(shares, 1))
  collector.submit(concatBytes(asciiBytes('\t '), pick(shares, 1), asciiBytes(' \r\n')))
  t.deepEqual(collector.progress.submitted, [2])
  t.false(collector.isComplete)
})

test('a bad share is named at once, by itself, and those before it stay', async (t) => {
  const { shares, set } = await splitFor(3, 2)
  const [{ shares: earlier }, { shares: foreign }] = await Promise.all([splitFor(3, 2), splitFor(3, 2, digestOf(8))])
  const collector = new ShareCollector(set)
  collector.submit(pick(shares, 0))
  const refused = (claimed: Uint8Array, message: RegExp): void => {
    t.throws(() => collector.submit(claimed), { code: 'ERR_SHARE_INVALID', message })
    t.deepEqual(collector.progress.submitted, [1])
  }
  const mistyped = pick(shares, 1)
  mistyped[40] = mistyped[40] === 113 ? 112 : 113
  refused(mistyped, /mistyped/)
  refused(pick(shares, 1).subarray(1), /mistyped/)
  refused(new Uint8Array(0), /mistyped/)
  refused(new Uint8Array(1_000_000), /mistyped/)
  // Longer than any share is, even where only white space makes it so: it is not looked at.
  refused(concatBytes(new Uint8Array(300).fill(32), pick(shares, 1)), /mistyped/)
  refused(pick(earlier, 1), /share 2 of an earlier splitting/)
  refused(pick(foreign, 1), new RegExp(`of another KMS, ${fingerprintOf(digestOf(8))}`))
  // A custodian who makes up a share with the right words around it.
  const forge = (version: number, index: number, size: number) =>
    encodeBech32(
      'keyrise-share-',
      concatBytes(Uint8Array.of(version), set.set, IDENTITY.subarray(0, 8), Uint8Array.of(index), new Uint8Array(size)),
    )
  refused(forge(1, 2, 33), /share 2 is not the one that was given out/)
  refused(forge(1, 4, 33), /share 4 is not/)
  refused(forge(1, 0, 33), /share 0 is not/)
  refused(forge(1, 2, 32), /later version/)
  refused(forge(2, 2, 33), /later version/)
  collector.submit(pick(shares, 2))
  t.true(collector.isComplete)
})

test('fewer than two custodians, more than 32, or a threshold that cannot be met are refused', async (t) => {
  for (const [count, threshold] of [
    [1, 1],
    [3, 1],
    [2, 3],
    [33, 2],
  ] as const)
    await t.throwsAsync(splitFor(count, threshold), { code: 'ERR_CONFIG_INVALID' })
  t.is((await splitFor(32, 32)).shares.length, 32)
})

test('what lies beside the keyring comes back; damage, and what no splitting has, is refused', async (t) => {
  const { set } = await splitFor(3, 2)
  const file = encodeCustodians(set)
  t.deepEqual(decodeCustodians(file), set)
  const refused = (claimed: Uint8Array): void =>
    void t.throws(() => decodeCustodians(claimed), { code: 'ERR_CUSTODIANS_INVALID' })
  for (let size = 0; size < file.length; size += 7) refused(file.subarray(0, size))
  const { identity, threshold, commitments } = set
  refused(encodeCbor(['keyrise/v2/custodians', { identity, set: set.set, threshold, commitments }]))
  for (const changed of [{ threshold: 1 }, { threshold: 4 }, { commitments: [] }, { set: new Uint8Array(7) }])
    refused(encodeCbor(['keyrise/v1/custodians', { identity, set: set.set, threshold, commitments, ...changed }]))
})

const PLACE = { directory: '/kms', custody: '/custody/keyring.age' }

const makeDisk = async () => {
  const { fs, setFault } = makeFaultyDisk()
  await prepareDirectory(fs, '/custody')
  await prepareDirectory(fs, '/kms')
  const given: { texts: Bytes[]; custodians: CustodianSet }[] = []
  const create = () =>
    createKms({
      place: PLACE,
      fs,
      random: nodeRandom,
      logN: 1,
      count: 3,
      threshold: 2,
      deliver: (shares, custodians) => {
        given.push({ texts: shares.map(textOf), custodians })
        return Promise.resolve()
      },
    })
  const open = async (texts: readonly Bytes[]) => {
    const custodians = await readCustodians(PLACE, fs)
    if (custodians === undefined) throw new Error('no custodians')
    const collector = new ShareCollector(custodians)
    for (const text of texts.slice(0, custodians.threshold)) collector.submit(text)
    using passphrase = await collector.join()
    return await openKeyring({ place: PLACE, passphrase, fs })
  }
  return { fs, create, open, given, setFault }
}

test('a KMS whose passphrase custodians share opens with enough of their shares', async (t) => {
  const { create, open, given } = await makeDisk()
  const made = await create()
  t.deepEqual(given[0]?.custodians.identity, made.identity)
  using keyring = await open(given[0]?.texts.slice(1) ?? [])
  t.deepEqual(keyring.identity, made.identity)
})

test('shares that cannot be handed out make no KMS', async (t) => {
  const { fs } = await makeDisk()
  const options = { place: PLACE, fs, random: nodeRandom, logN: 1, count: 2, threshold: 2 }
  await t.throwsAsync(createKms({ ...options, deliver: () => Promise.reject(new Error('no paper')) }))
  t.false(await hasKeyring(PLACE, fs))
  t.deepEqual(await fs.list('/kms'), [])
})

test('a crash at any step of init with custodians leaves shares that open the KMS, or nothing that hinders the next init', async (t) => {
  const dry = await makeDisk()
  const count = await countOperations(dry.fs, () => dry.create())
  t.true(count > 15)
  for (const stop of stopsWithin(count)) {
    const disk = await makeDisk()
    const made = await stopAndRestart(disk, stop, () => disk.create())
    if (await hasKeyring(PLACE, disk.fs)) t.is(disk.given.length, 1)
    else {
      t.is(made, undefined)
      await disk.create()
    }
    using keyring = await disk.open(disk.given.at(-1)?.texts ?? [])
    if (made !== undefined) t.deepEqual(keyring.identity, made.identity)
  }
})
