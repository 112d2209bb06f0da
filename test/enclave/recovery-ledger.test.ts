import test from 'ava'
import { FlowKeys } from '../../enclave/flow-keys.js'
import { packEpoch } from '../../enclave/epoch-file.js'
import { parseObjectName, storeName, type ObjectName } from '../../enclave/object-names.js'
import { MemoryFileSystem } from '../../faults/index.js'
import type { Keyring } from '../../kms/keyring.js'
import { parseHeader } from '../../protocol/age-header.js'
import { copyBytes, type Bytes } from '../../protocol/bytes.js'
import { openPayloadOf, unwrapHeader } from '../../protocol/crypto/envelope.js'
import { deriveOriginKey } from '../../protocol/crypto/keys.js'
import { nodeRandom } from '../../protocol/crypto/primitives.js'
import { x25519Identity } from '../../protocol/crypto/recipients.js'
import { Secret } from '../../protocol/crypto/secret.js'
import { parseFlowId } from '../../protocol/names.js'
import type { Head } from '../../protocol/session.js'
import { IMAGE, startInProcess } from '../kms/in-process.js'
import { FLOW, readAll, readText, startWorld, TASK, text, type World } from './flow-world.js'
import { copyOfLedger, restartedWith } from './ledger-world.js'

/** The ledger’s own disk rolled back or lost: named by what the KMS once signed (docs/adr/0003-commit-order.md). */

const grow = async (world: World, ...values: readonly string[]): Promise<void> => {
  const { flow } = await world.launch()
  for (const value of values) await flow.checkpoint({ 'password/a': text(value) })
}

test('case 13: a ledger rolled back by more than a crash explains is named, with what it acknowledged and what it has', async (t) => {
  const world = await startWorld()
  const { flow } = await world.launch()
  await flow.checkpoint({ 'password/a': text('2') })
  const old = await restartedWith(world, await copyOfLedger(world))
  await flow.checkpoint({ 'password/a': text('3') })
  await flow.checkpoint({ 'password/a': text('4') })
  const before = await world.store.list('')
  await t.throwsAsync(world.launch({ kms: old.service }), {
    code: 'ERR_LEDGER_ROLLED_BACK',
    message: /acknowledged epoch 3, incarnation 1 and has epoch 2, incarnation 1/,
  })
  t.deepEqual(await world.store.list(''), before)
  t.is(await readText(await world.launch(), 'password/a'), '4')
})

test('case 13: so is one rolled back past a claim, whose incarnations it never issued', async (t) => {
  const world = await startWorld()
  await grow(world, '2')
  const old = await restartedWith(world, await copyOfLedger(world))
  await grow(world, '3')
  await t.throwsAsync(world.launch({ kms: old.service }), {
    code: 'ERR_LEDGER_ROLLED_BACK',
    message: /acknowledged epoch 2, incarnation 2 and has epoch 2, incarnation 1/,
  })
  t.is(await readText(await world.launch(), 'password/a'), '3')
})

test('case 13: so is one that was lost, and no fresh root is made beside old ciphertext', async (t) => {
  const world = await startWorld()
  await grow(world, '2', '3')
  const before = await world.store.list('')
  const forgetful = await restartedWith(world, new MemoryFileSystem())
  await t.throwsAsync(world.launch({ kms: forgetful.service }), {
    code: 'ERR_LEDGER_ROLLED_BACK',
    message: /acknowledged epoch 2, incarnation 1 and has epoch 0, incarnation 0/,
  })
  t.deepEqual(await world.store.list(''), before)
  t.is(await readText(await world.launch(), 'password/a'), '3')
})

test('a ledger that lost a flow of which nothing but its birth was ever stored is ERR_FORK', async (t) => {
  const world = await startWorld()
  await world.launch()
  const forgetful = await restartedWith(world, new MemoryFileSystem())
  await t.throwsAsync(world.launch({ kms: forgetful.service }), { code: 'ERR_FORK' })
})

test('a ledger rolled back by one commit adopts that epoch again: nothing is lost', async (t) => {
  const world = await startWorld()
  const { flow } = await world.launch()
  await flow.checkpoint({ 'password/a': text('2') })
  const old = await restartedWith(world, await copyOfLedger(world))
  await flow.checkpoint({ 'password/a': text('3') })
  const opened = await world.launch({ kms: old.service })
  t.deepEqual(opened.recovery, { kind: 'recovered', adopted: true, epoch: 3 })
  t.deepEqual(await readAll(opened), { 'password/a': '3' })
})

test('an instance that lives through it says so at its next commit, and commits nothing under the old ledger', async (t) => {
  const world = await startWorld()
  let kms: Pick<typeof world.kms.service, 'exchange'> = world.kms.service
  const { flow } = await world.launch({ kms: { exchange: (frame) => kms.exchange(frame) } })
  await flow.checkpoint({ 'password/a': text('2') })
  const fs = await copyOfLedger(world)
  await flow.checkpoint({ 'password/a': text('3') })
  const old = await restartedWith(world, fs)
  kms = old.service
  for (const value of ['4', '5'])
    await t.throwsAsync(flow.checkpoint({ 'password/a': text(value) }), {
      code: 'ERR_LEDGER_ROLLED_BACK',
      message: /acknowledged epoch 3, incarnation 1 and has epoch 2, incarnation 1/,
    })
  t.is((await old.ledger.read(parseFlowId(FLOW)))?.head?.epoch, 2)
})

/** The KMS’s keys, but that what it signs under `tag` is another’s signature. */
const forgingKeyring = (keyring: Keyring, tag: string, state: { active: boolean }): Keyring =>
  new Proxy(keyring, {
    get: (target, property) => {
      const value: unknown = Reflect.get(target, property, target)
      if (typeof value !== 'function') return value
      const method = value.bind(target) as (...given: unknown[]) => unknown
      if (property !== 'sign') return method
      return (message: Bytes) => {
        const forged = state.active && Buffer.from(message).includes(tag)
        return target.sign(forged ? text('something else') : message)
      }
    },
  })

test('a claim or a commit whose acknowledgement the KMS identity did not sign is ERR_KMS_UNTRUSTED', async (t) => {
  const { keyring } = await startInProcess()
  const state = { active: true }
  const kms = await startInProcess({ keyring: forgingKeyring(keyring, 'keyrise/v1/acknowledgement', state) })
  const world = await startWorld()
  const launch = () =>
    world.launch({ kms: kms.service, kmsIdentity: keyring.identity, platform: kms.platform, flow: 'flow-2' })
  await t.throwsAsync(launch(), { code: 'ERR_KMS_UNTRUSTED', message: /acknowledgement/ })
  state.active = false
  const { flow } = await launch()
  state.active = true
  await t.throwsAsync(flow.checkpoint({ 'password/a': text('a') }), { code: 'ERR_KMS_UNTRUSTED' })
  t.deepEqual(flow.list(), [])
  // The same commit is repeated, and now acknowledged.
  state.active = false
  t.deepEqual(await flow.read('password/a'), text('a'))
})

/** The keys of the world’s flow, as an instance whose image was subverted would have them. */
const stolenKeys = async ({ kms: { keyring }, store }: World): Promise<FlowKeys> => {
  const [pair = ''] = await store.pairs('root')
  const envelope = await store.envelope(pair)
  using fileKey = unwrapHeader(parseHeader(envelope), [x25519Identity(keyring.rootKeys[0].privateKey)])
  const flow = parseFlowId(FLOW)
  return new FlowKeys({
    identity: { flow, task: parseFlowId(TASK), image: IMAGE },
    root: Secret.take(openPayloadOf(envelope, fileKey).plaintext),
    rootObject: parseObjectName(pair.slice(FLOW.length + 1)) as ObjectName,
    origin: { authority: keyring.identity, key: deriveOriginKey(keyring.originSecret, flow, IMAGE) },
    random: nodeRandom,
  })
}

test('what nobody acknowledged accuses no ledger: an epoch ahead of it without the KMS’s signature is ERR_FORK', async (t) => {
  const world = await startWorld()
  await grow(world, '2')
  const signature = copyBytes(new Uint8Array(64).fill(7))
  const { head } = (await world.kms.ledger.read(parseFlowId(FLOW))) ?? {}
  using keys = await stolenKeys(world)
  const forge = async (epoch: number, incarnation: number, parent: Head): Promise<string> => {
    const place = { kind: 'epoch', epoch, incarnation, serial: 9 } as const
    const index = { parent, acknowledgement: signature, entries: new Map() }
    using plaintext = Secret.take(packEpoch(index, []))
    const name = storeName(parseFlowId(FLOW), place)
    await world.store.put(
      name,
      plaintext.expose((bytes) => keys.sealEpoch(bytes, place)),
    )
    return name
  }
  const other = { epoch: 2, digest: copyBytes(new Uint8Array(32)) }
  for (const [message, epoch, incarnation, parent] of [
    [/epoch 4 does not follow/, 4, 1, { epoch: 3, digest: other.digest }],
    [/epoch 3 does not follow/, 3, 1, other],
    [/incarnation 2 was never issued/, 3, 2, head as Head],
  ] as const) {
    const name = await forge(epoch, incarnation, parent)
    await t.throwsAsync(world.launch(), { code: 'ERR_FORK', message })
    await world.store.delete(name)
  }
  const name = await forge(4, 1, { epoch: 3, digest: other.digest })
  const forgetful = await restartedWith(world, new MemoryFileSystem())
  await t.throwsAsync(world.launch({ kms: forgetful.service }), { code: 'ERR_FORK' })
  await world.store.delete(name)
  t.is(await readText(await world.launch(), 'password/a'), '2')
})

test('a ledger that an instance moves on while another recovers is not taken for one that was rolled back', async (t) => {
  const world = await startWorld()
  const { flow } = await world.launch()
  await flow.checkpoint({ 'password/a': text('2') })
  let isMoving = true
  const opened = await world.launch({
    interrupt: async ({ at, operation }) => {
      if (!isMoving || at !== 'before' || operation !== 'store-list') return
      isMoving = false
      await flow.checkpoint({ 'password/a': text('3') })
      await flow.checkpoint({ 'password/a': text('4') })
    },
  })
  t.is(await readText(opened, 'password/a'), '4')
})
