import test from 'ava'
import type { OpenedFlow } from '../../enclave/flow.js'
import { ObjectCache } from '../../enclave/object-cache.js'
import { Keyring } from '../../kms/keyring.js'
import { asciiBytes, copyBytes } from '../../protocol/bytes.js'
import { openEnvelope, sealEnvelope } from '../../protocol/crypto/envelope.js'
import { nodeRandom } from '../../protocol/crypto/primitives.js'
import { scryptIdentity, scryptRecipient } from '../../protocol/crypto/recipients.js'
import { Secret } from '../../protocol/crypto/secret.js'
import { disposeAll, lend, wipeAtExit } from '../../protocol/live-secrets.js'
import { atEveryMoment, dies, startWorld, text, type World } from '../enclave/flow-world.js'

// `disposeAll` is of the whole thread, so these tests take turns.

const isZero = (bytes: Uint8Array): boolean => bytes.every((byte) => byte === 0)

test.serial(
  'disposeAll wipes secrets, bytes that authors registered, and what was lent and is still within reach',
  (t) => {
    disposeAll()
    const taken = Secret.take(copyBytes(Uint8Array.of(1, 2, 3)))
    const gone = Secret.take(copyBytes(Uint8Array.of(4, 5, 6)))
    const seen = taken.expose((bytes) => bytes)
    gone[Symbol.dispose]()
    gone[Symbol.dispose]()
    const [kept, released, lent] = [asciiBytes('kept'), asciiBytes('released'), lend(asciiBytes('lent'))]
    wipeAtExit(kept)
    const registration = wipeAtExit(released)
    registration[Symbol.dispose]()
    t.true(isZero(released))
    registration[Symbol.dispose]()
    const moved = lend(asciiBytes('moved'))
    structuredClone(moved, { transfer: [moved.buffer] })
    t.is(disposeAll(), 2)
    t.true([seen, kept, lent].every(isZero))
    t.throws(() => taken.size, { message: /disposed/ })
    t.is(disposeAll(), 0)
  },
)

test.serial('secrets leave the list in any order', (t) => {
  disposeAll()
  const secrets = Array.from({ length: 6 }, () => Secret.random(32, nodeRandom))
  for (const index of [0, 5, 2, 3]) secrets[index]?.[Symbol.dispose]()
  t.is(disposeAll(), 2)
  const after = Secret.random(32, nodeRandom)
  t.is(disposeAll(), 1)
  t.throws(() => after.size)
})

test.serial('many lent bytes do not pile up, and those in reach are wiped', (t) => {
  const held = Array.from({ length: 3000 }, () => lend(copyBytes(Uint8Array.of(1))))
  disposeAll()
  t.true(held.every(isZero))
})

/** Runs `work` now, or after so many turns of the microtask queue or, the third, of the event loop. */
const afterTurns = (count: number, work: () => void): void => {
  if (count === 0) work()
  else if (count > 2) setImmediate(() => afterTurns(count - 1, work))
  else queueMicrotask(() => afterTurns(count - 1, work))
}

/** Ends the KMS of a world and its instances, and says how many secrets nobody had disposed of. */
const leftBy = async ({ kms }: World): Promise<number> => {
  await kms.service.close()
  kms.keyring[Symbol.dispose]()
  // The seed of the world’s platform is nobody’s to dispose of.
  return disposeAll() - 1
}

test.serial('a first launch that dies at any moment leaves no secret to the collector', async (t) => {
  disposeAll()
  const moments = await atEveryMoment(async (interrupt) => {
    const world = await startWorld()
    await dies(async () => {
      const opened = await world.launch({ interrupt: interrupt() })
      opened.wipe()
    })
    t.is(await leftBy(world), 0)
  })
  t.true(moments.length > 5)
})

test.serial('a recovery, reads and a checkpoint that die at any moment leave no secret to the collector', async (t) => {
  disposeAll()
  const world = await startWorld()
  const first = await world.launch()
  await first.flow.checkpoint({ 'password/a': text('a'), 'password/b': { to: 'kms', bytes: text('b') } })
  first.wipe()
  let launchCount = 0
  const moments = await atEveryMoment(async (interrupt) => {
    await dies(async () => {
      const opened = await world.launch({ interrupt: interrupt() })
      launchCount++
      await dies(async () => {
        await Promise.all([opened.flow.read('password/a'), opened.flow.read('password/b')])
        await opened.flow.checkpoint({ 'password/c': text('c'), 'password/d': { to: 'kms', bytes: text('d') } })
      })
      opened.wipe()
    })
  })
  t.true(moments.length > 5 && launchCount > 5)
  t.is(await leftBy(world), 0)
})

test.serial(
  'an instance that is wiped at any moment of reads and a checkpoint keeps nothing that arrives later',
  async (t) => {
    disposeAll()
    const world = await startWorld()
    const first = await world.launch()
    await first.flow.checkpoint({ 'password/a': text('a'), 'password/b': { to: 'kms', bytes: text('b') } })
    first.wipe()
    for (let moment = 0, isOver = false; !isOver; moment++) {
      let [opened, left]: [OpenedFlow | undefined, number] = [undefined, Math.floor(moment / 4)]
      const interrupt = (): void => {
        // Later within the same operation, too: a frame may be about to open.
        if (opened !== undefined && left-- === 0) afterTurns(moment % 4, () => opened?.wipe())
      }
      opened = await world.launch({ interrupt })
      const { flow } = opened
      const changes = { 'password/c': text('c'), 'password/d': { to: 'kms', bytes: text('d') } } as const
      await Promise.allSettled([flow.read('password/a'), flow.read('password/b'), flow.checkpoint(changes)])
      isOver = left >= 0
      opened.wipe()
    }
    t.is(await leftBy(world), 0)
  },
)

test.serial('of a damaged store, what opened is wiped', async (t) => {
  disposeAll()
  for (const part of ['root', 'epoch']) {
    const world = await startWorld()
    const first = await world.launch()
    await first.flow.checkpoint({ 'password/a': text('a') })
    first.wipe()
    for (const name of await world.store.names(part)) {
      const damaged = copyBytes((await world.store.get(name)) as Uint8Array)
      damaged[damaged.length - 1] = (damaged[damaged.length - 1] as number) ^ 1
      await world.store.replace(name, damaged)
    }
    await t.throwsAsync(world.launch(), { code: 'ERR_STATE_LOST' })
    t.is(await leftBy(world), 0)
  }
})

test.serial('a cache that was disposed of keeps nothing that arrives later', (t) => {
  disposeAll()
  const cache = new ObjectCache(1024)
  cache[Symbol.dispose]()
  cache.hold('late', Secret.random(32, nodeRandom), 0)
  t.false(cache.has('late'))
  t.is(disposeAll(), 0)
})

test.serial('a keyring whose halves do not match leaves none of its keys', (t) => {
  disposeAll()
  const passphrase = Secret.take(asciiBytes('correct horse'))
  const keyring = Keyring.create(nodeRandom)
  const file = keyring.seal({ passphrase, random: nodeRandom, logN: 10 })
  keyring[Symbol.dispose]()
  const { plaintext } = openEnvelope(file, { identities: [scryptIdentity(passphrase)] })
  // The last secret is the origin seed of the newest root key; the first of them the identity’s.
  for (const fromEnd of [1, 4 * 32]) {
    const other = copyBytes(plaintext)
    other[other.length - fromEnd] = (other[other.length - fromEnd] as number) ^ 1
    const forged = sealEnvelope(other, { recipients: [scryptRecipient(passphrase, 10)], random: nodeRandom })
    t.throws(() => Keyring.open(forged, passphrase), { code: 'ERR_KEYRING_INVALID' })
  }
  passphrase[Symbol.dispose]()
  t.is(disposeAll(), 0)
})
