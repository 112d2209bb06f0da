import { createHash, sign } from 'node:crypto'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { MemoryStore } from '../../../host/index.js'
import { openPlatformKey } from '../../../platform/key-file.js'
import { copyBytes, equalPublicBytes, type Bytes } from '../../../protocol/bytes.js'
import { prepareEvidence } from '../../../protocol/evidence.js'
import type { KmsLink, Store } from '../../../protocol/ports.js'
import { AttestedClient } from '../../kms/attested-client.js'
import { leaks, LEAKS, stops, STOPPED, type Attack } from '../attack.js'
import type { Stage } from '../stage.js'
import { bareVault, linkOf, refusal, World } from '../world.js'

/** What was true once, said again: old state, old frames, the platform’s key in other hands. */

const sealUnder = (key: Uint8Array): string => createHash('sha256').update(key).digest('hex')

/** A bare worker takes what the host gives back to it, however old. */
const believesOldKey = async (): Promise<boolean> => {
  const [older, newer] = [new Uint8Array(32).fill(1), new Uint8Array(32).fill(2)]
  const first = bareVault()
  await first.recover(older)
  await first.recover(newer)
  const next = bareVault()
  await next.recover(older)
  return (await next.seal()) === sealUnder(older)
}

const copyOf = async (store: Store): Promise<Store> => {
  const copy = new MemoryStore()
  for (const name of await store.list('')) await copy.put(name, (await store.get(name)) ?? new Uint8Array(0))
  return copy
}

const storeRollback: Attack = {
  name: 'store-rollback',
  attacker: 'H1',
  tries: 'a store put back to what it was, whole or but for its newest file, before a relaunch',
  expected: STOPPED,
  async run(stage) {
    if (stage.level === 'bare')
      return (await believesOldKey()) ? leaks('it goes on from the older state') : stops('refused')
    const world = await World.open(stage)
    const enclave = await world.launch()
    await enclave.ecalls.count()
    const older = await copyOf(world.store)
    await enclave.ecalls.count()
    await enclave.close()
    const newer = world.store
    const missing = await copyOf(newer)
    for (const name of await newer.list('')) if ((await older.get(name)) === undefined) await missing.delete(name)
    for (const rolledBack of [older, missing]) {
      world.store = rolledBack
      const refused = await refusal(world.launch())
      if (refused === 'none') return leaks('it goes on from the older state')
      if (refused !== 'ERR_ROLLBACK' && refused !== 'ERR_STATE_LOST') return leaks(`refused with ${refused}`)
    }
    world.store = newer
    const { ecalls } = await world.launch()
    return (await ecalls.count()) === 3
      ? stops('refused by name, and the newest state opens')
      : leaks('a count is lost')
  },
}

/** A challenge and a handshake make a session. */
const HANDSHAKE_COUNT = 2

interface Exchange {
  readonly frame: Bytes
  readonly reply: Bytes
}

/** The KMS’s link, with all that passed it. */
const recording = (world: World): { link: KmsLink; exchanges: Exchange[] } => {
  const exchanges: Exchange[] = []
  const link = linkOf(world.kms, async (frame) => {
    const reply = await world.kms.exchange(frame)
    exchanges.push({ frame: copyBytes(frame), reply: copyBytes(reply) })
    return copyBytes(reply)
  })
  return { link, exchanges }
}

const frameReplay: Attack = {
  name: 'frame-replay',
  attacker: 'H1',
  tries:
    'frames between enclave and KMS once more: to the KMS, to a new instance of the flow, to another flow’s enclave, and back to whoever sent them',
  expected: STOPPED,
  async run(stage) {
    if (stage.level === 'bare')
      return (await believesOldKey()) ? leaks('what was recorded counts once more') : stops('refused')
    const world = await World.open(stage)
    const { link, exchanges } = recording(world)
    const enclave = await world.launch(link)
    await enclave.ecalls.count()
    const recorded = [...exchanges]
    for (const { frame } of recorded) await world.kms.exchange(frame).catch(() => undefined)
    if ((await enclave.ecalls.count()) !== 2) return leaks('frames that the KMS has seen move a flow')
    for (const flow of ['flow', 'other']) {
      const next = recorded.values()
      const replayed = linkOf(world.kms, () =>
        Promise.resolve(copyBytes(next.next().value?.reply ?? new Uint8Array(1))),
      )
      if ((await refusal(world.launch(replayed, flow))) === 'none') return leaks('a recorded KMS is believed')
      const reflected = linkOf(world.kms, (frame) => Promise.resolve(copyBytes(frame)))
      if ((await refusal(world.launch(reflected, flow))) === 'none') return leaks('it believes its own words')
      let count = 0
      // The session is honest; what comes in it was said in another.
      const mixed = linkOf(world.kms, async (frame) => {
        const reply = await world.kms.exchange(frame)
        return count++ < HANDSHAKE_COUNT ? copyBytes(reply) : copyBytes(recorded[count - 1]?.reply ?? new Uint8Array(1))
      })
      if ((await refusal(world.launch(mixed, `${flow}-2`))) === 'none')
        return leaks('another session’s words are believed')
    }
    await enclave.close()
    const { ecalls } = await world.launch()
    return (await ecalls.count()) === 3
      ? stops('a code each time; the flow is as before')
      : leaks('the flow has changed')
  },
}

const KEYED_COUNT = 12

const keyedRepeat: Attack = {
  name: 'keyed-repeat',
  attacker: 'H1',
  tries:
    'calls that are given up at any moment and repeated, under one idempotency key each, to have their effect twice; a key of another call, to be given its answer',
  expected: STOPPED,
  async run(stage) {
    if (stage.level === 'bare') {
      const victim = bareVault()
      for (let round = 0; round < KEYED_COUNT; round++) for (const _ of ['once', 'again']) await victim.count()
      return (await victim.count()) > KEYED_COUNT + 1 ? leaks('each repetition counts') : stops('once each')
    }
    const world = await World.open(stage)
    const { ecalls } = await world.launch()
    for (let round = 1; round <= KEYED_COUNT; round++) {
      const idempotencyKey = `round-${String(round)}`
      const given = new AbortController()
      const first = ecalls.count(undefined, { idempotencyKey, signal: given.signal }).catch(() => undefined)
      await sleep(round % 4)
      given.abort()
      await first
      const [second, third] = await Promise.all([1, 2].map(() => ecalls.count(undefined, { idempotencyKey })))
      if (second !== round || third !== round) return leaks('a repetition counts')
      const other = await refusal(ecalls.answer(String(round), { idempotencyKey }))
      if (other !== 'ERR_IDEMPOTENCY_CONFLICT') return leaks('another call is answered under the key')
    }
    const peer = await world.launch(world.kms, 'peer')
    if ((await peer.ecalls.count(undefined, { idempotencyKey: 'round-1' })) !== 1)
      return leaks('an answer of another flow')
    return stops('each counts once, and a key stands for one call of one flow')
  },
}

/** Evidence for whatever key and image one likes, signed with the key that lies beside the host. */
const forger = async (stage: Stage): Promise<Pick<AttestedClientPlatform, 'attest'>> => {
  const key = await openPlatformKey(join(stage.directory, 'platform'))
  return {
    attest: (claims) => {
      const { toSign, join: joined } = prepareEvidence({
        name: 'vault',
        svn: 1,
        configDigest: new Uint8Array(32),
        debug: false,
        signed: null,
        ...claims,
      })
      return joined(sign(null, toSign, key))
    },
  }
}
type AttestedClientPlatform = Parameters<typeof AttestedClient.connect>[0]['platform']

const platformKey: Attack = {
  name: 'platform-key',
  attacker: 'H1',
  tries:
    'the key that signs evidence, read from the file where a simulated platform keeps it: an enclave of one’s own, for the KMS',
  expected: LEAKS,
  needsTee: true,
  async run(stage) {
    if (stage.level === 'bare')
      return (await believesOldKey()) ? leaks('a bare worker is not even asked for evidence') : stops('refused')
    const world = await World.open(stage)
    const enclave = await world.launch()
    await enclave.ecalls.count()
    const client = await AttestedClient.connect({
      kms: world.kms,
      kmsIdentity: world.kms.identity,
      platform: await forger(stage),
      image: world.image.measurement,
    }).catch(() => undefined)
    if (client === undefined) return stops('the KMS refuses the evidence')
    await client.open('flow', 'task')
    const key = client.origin?.key.expose((bytes) => Uint8Array.from(bytes))
    return key !== undefined && !equalPublicBytes(key, new Uint8Array(key.length))
      ? leaks('the KMS gives the flow’s keys to the host')
      : stops('the KMS gives nothing')
  },
}

export const REPLAY_ATTACKS: readonly Attack[] = [storeRollback, frameReplay, keyedRepeat, platformKey]
