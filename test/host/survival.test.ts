import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import test from 'ava'
import { faultyKms, faultyStore, KillablePlatform, type FaultPlan } from '../../faults/index.js'
import {
  buildImage,
  DirectoryStore,
  launch,
  SimulatedPlatform,
  type EnclaveEvent,
  type EnclaveHandle,
  type Image,
  type Isolation,
} from '../../host/index.js'
import { startKms, type EmbeddedKms } from '../../kms/index.js'
import type notebook from './notebook.enclave.js'

// One image, platform and KMS serve all tests; each has a flow and a directory of its own.

const directory = await mkdtemp(join(tmpdir(), 'keyrise-survival-'))
let image: Image<typeof notebook>
let machine: SimulatedPlatform
let kms: EmbeddedKms

test.before(async () => {
  image = await buildImage(fileURLToPath(new URL('./notebook.enclave.js', import.meta.url)))
  machine = await SimulatedPlatform.open(join(directory, 'machine'))
  kms = await startKms({
    directory: join(directory, 'kms'),
    passphrase: new TextEncoder().encode('correct horse'),
    policy: { platforms: [machine.publicKey], images: [{ name: 'notebook', measurement: image.measurement }] },
    workFactor: 4,
  })
})
test.after.always(async () => {
  await kms.close()
  await rm(directory, { recursive: true })
})

interface Place {
  readonly platform: KillablePlatform
  readonly flow: string
  readonly root: string
  readonly events: EnclaveEvent[]
  open: (o?: {
    isolation?: Isolation
    store?: FaultPlan
    kms?: FaultPlan
    pause?: () => undefined | Promise<undefined>
  }) => Promise<EnclaveHandle<typeof notebook>>
}

let count = 0
const place = (): Place => {
  const flow = `flow-${String(count++)}`
  const root = join(directory, flow)
  const platform = new KillablePlatform(machine)
  const events: EnclaveEvent[] = []
  return {
    platform,
    flow,
    root,
    events,
    open: (o = {}) => {
      const store = new DirectoryStore(root)
      return launch({
        image,
        platform,
        store: o.store === undefined ? store : faultyStore(store, o.store),
        kms: o.kms === undefined ? kms : faultyKms(kms, o.kms),
        flow,
        ocalls: { pause: o.pause ?? (() => undefined) },
        onEvent: (event) => events.push(event),
        ...(o.isolation === undefined ? {} : { isolation: o.isolation }),
      })
    },
  }
}

const bytes = (...values: number[]): Uint8Array<ArrayBuffer> => new Uint8Array(values)

for (const isolation of ['worker', 'process'] as const) {
  test(`what was written before a kill is read after it, and the flow’s keys are the same (${isolation})`, async (t) => {
    const { platform, flow, open, events } = place()
    await using handle = await open({ isolation })
    const { ecalls } = handle
    const epoch = await ecalls.write({ page: 'a', bytes: bytes(1, 2, 3) })
    const signature = await ecalls.sign(bytes(9))
    t.is(await platform.kill(flow), 1)
    t.deepEqual(await ecalls.read('a'), bytes(1, 2, 3))
    t.deepEqual(await ecalls.sign(bytes(9)), signature)
    t.is(await ecalls.write({ page: 'b', bytes: bytes(4) }), epoch + 1)
    await handle.close()
    const again = await open({ isolation })
    t.deepEqual(
      [await again.ecalls.read('a'), await again.ecalls.read('b'), await again.ecalls.read('c')],
      [bytes(1, 2, 3), bytes(4), null],
    )
    await again.close()
    t.deepEqual(
      events.map(({ type }) => type),
      ['launching', 'ready', 'lost', 'launching', 'ready', 'closed', 'launching', 'ready', 'closed'],
    )
  })

  test(`case 29: a call in the enclave when it is killed rejects; one made at once afterwards is answered by the next (${isolation})`, async (t) => {
    const { platform, flow, open } = place()
    let entered!: () => void
    const inside = new Promise<void>((resolve) => (entered = resolve))
    await using handle = await open({
      isolation,
      pause: () => {
        entered()
        return new Promise<undefined>(() => undefined)
      },
    })
    const { ecalls } = handle
    const hanging = ecalls.hang()
    await inside
    const killed = platform.kill(flow)
    await t.throwsAsync(hanging, { code: 'ERR_ENCLAVE_LOST' })
    t.is(await killed, 1)
    t.is(await ecalls.read('a'), null)
  })
}

test('a flow that was written at one level of isolation is read at the other', async (t) => {
  const { open } = place()
  const inWorker = await open({ isolation: 'worker' })
  await inWorker.ecalls.write({ page: 'a', bytes: bytes(1, 2, 3) })
  const signature = await inWorker.ecalls.sign(bytes(9))
  await inWorker.close()
  await using inProcess = await open({ isolation: 'process' })
  t.deepEqual(await inProcess.ecalls.read('a'), bytes(1, 2, 3))
  t.deepEqual(await inProcess.ecalls.sign(bytes(9)), signature)
})

for (const at of ['before', 'after'] as const) {
  for (const operation of ['store-put', 'kms-exchange'] as const) {
    test(`killed just ${at} the ${operation} of a checkpoint: the page is whole or absent, and writing goes on`, async (t) => {
      const { platform, flow, open } = place()
      let armed = false
      const plan: FaultPlan = async (moment) => {
        if (!armed || moment.operation !== operation || moment.at !== at) return undefined
        armed = false
        await platform.kill(flow)
        return { fail: operation === 'store-put' ? 'ERR_STORE_IO' : 'ERR_KMS_UNREACHABLE' }
      }
      await using handle = await open({ store: plan, kms: plan })
      const { ecalls } = handle
      await ecalls.write({ page: 'a', bytes: bytes(1) })
      armed = true
      await t.throwsAsync(ecalls.write({ page: 'b', bytes: bytes(2) }), { code: 'ERR_ENCLAVE_LOST' })
      const survived = await ecalls.read('b')
      t.deepEqual(await ecalls.read('a'), bytes(1))
      // Only a put that never happened leaves nothing to adopt.
      t.deepEqual(survived, operation === 'store-put' && at === 'before' ? null : bytes(2))
      await ecalls.write({ page: 'c', bytes: bytes(3) })
      t.deepEqual(await ecalls.read('c'), bytes(3))
    })
  }
}

test('killed again and again, during recoveries too, it loses nothing that it acknowledged', async (t) => {
  const { platform, flow, open } = place()
  let killIn = 0
  const plan: FaultPlan = async () => {
    if (killIn > 0 && --killIn === 0) await platform.kill(flow)
    return undefined
  }
  await using handle = await open({ store: plan, kms: plan })
  const { ecalls } = handle
  await ecalls.write({ page: 'start', bytes: bytes(0) })
  for (let step = 1; step <= 10; step++) {
    killIn = step
    await platform.kill(flow)
    t.deepEqual(
      await ecalls.read('start').catch(() => ecalls.read('start')),
      bytes(0),
      `killed at step ${String(step)} of the recovery`,
    )
  }
  t.true(platform.killCount >= 15, String(platform.killCount))
})

test('a store directory that cannot be used is said at launch', async (t) => {
  const { root, open } = place()
  await writeFile(root, 'a file')
  await t.throwsAsync(open(), { code: 'ERR_STORE_UNWRITABLE' })
})

test('a store that lost everything is said, and nothing is begun anew', async (t) => {
  const { root, open } = place()
  await using handle = await open()
  const { ecalls } = handle
  await ecalls.write({ page: 'a', bytes: bytes(1) })
  await handle.close()
  await rm(root, { recursive: true })
  await t.throwsAsync(open(), { code: 'ERR_STATE_LOST' })
  t.deepEqual((await readdir(root)).length, 0)
})

test('a KMS that cannot be reached is said at launch; an enclave that runs goes on without it', async (t) => {
  const { open } = place()
  let down = true
  const plan: FaultPlan = ({ at }) => (down && at === 'before' ? { fail: 'ERR_KMS_UNREACHABLE' } : undefined)
  await t.throwsAsync(open({ kms: plan }), { code: 'ERR_KMS_UNREACHABLE' })
  down = false
  await using handle = await open({ kms: plan })
  const { ecalls } = handle
  await ecalls.write({ page: 'a', bytes: bytes(1) })
  down = true
  await t.throwsAsync(ecalls.write({ page: 'b', bytes: bytes(2) }), { code: 'ERR_KMS_UNREACHABLE' })
  down = false
  await ecalls.write({ page: 'c', bytes: bytes(3) })
  t.deepEqual(await ecalls.read('c'), bytes(3))
})

test('a full store fails the checkpoint, keeps what was there, and takes the next when there is space', async (t) => {
  const { open } = place()
  let full = false
  const plan: FaultPlan = ({ operation, at }) =>
    full && operation === 'store-put' && at === 'before' ? { fail: 'ERR_STORE_FULL' } : undefined
  await using handle = await open({ store: plan })
  const { ecalls } = handle
  await ecalls.write({ page: 'a', bytes: bytes(1) })
  full = true
  await t.throwsAsync(ecalls.write({ page: 'b', bytes: bytes(2) }), { code: 'ERR_STORE_FULL' })
  t.deepEqual(await ecalls.read('a'), bytes(1))
  full = false
  await ecalls.write({ page: 'b', bytes: bytes(3) })
  t.deepEqual(await ecalls.read('b'), bytes(3))
})

test('an image that the policy does not list is refused by name, every time', async (t) => {
  const { platform, root, flow } = place()
  const other: Image<typeof notebook> = await buildImage(
    fileURLToPath(new URL('./stranger.enclave.js', import.meta.url)),
  )
  const options = {
    image: other,
    platform,
    store: new DirectoryStore(root),
    kms,
    flow,
    ocalls: { pause: () => undefined },
  }
  for (let round = 0; round < 10; round++) await t.throwsAsync(launch(options), { code: 'ERR_POLICY_DENIED' })
})
