import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import test from 'ava'
import { faultyKms, KillablePlatform, SimulatedClock } from '../../faults/index.js'
import { buildImage, launch, MemoryStore, SimulatedPlatform, type EnclaveEvent } from '../../host/index.js'
import { startKms } from '../../kms/index.js'
import { encodeCall, RUNTIME_OCALLS } from '../../protocol/calls.js'
import { decodeConfiguration } from '../../protocol/configuration.js'
import type notebook from './notebook.enclave.js'
import { LIMITS, settle } from './scripted-launch.js'
import { echoKms, ScriptedPlatform, scriptedImage, type ScriptedEnclave } from './scripted-platform.js'

/** A launch with a spare, of scripted enclaves: the first serves; the others ask for leave to start, and say READY when they have it. */
const startWithSpare = async () => {
  const clock = new SimulatedClock(1_000_000)
  const events: EnclaveEvent[] = []
  const platform = new ScriptedPlatform((enclave, index) => {
    if (index === 0) enclave.ready()
    else standBy(enclave)
  })
  const handle = await launch({
    image: scriptedImage(),
    platform,
    store: new MemoryStore(),
    kms: echoKms,
    flow: 'flow-1',
    clock,
    limits: LIMITS,
    spare: true,
    onEvent: (event) => events.push(event),
  })
  await settle()
  const echo = handle.ecalls['echo'] as (input?: unknown) => Promise<unknown>
  return { clock, events, platform, handle, echo }
}

const standBy = (enclave: ScriptedEnclave): void => {
  enclave.inside.ocalls.post(encodeCall('start', RUNTIME_OCALLS.start, undefined).message)
}
const isStarted = ({ replies }: ScriptedEnclave): boolean =>
  replies.some((reply) => (reply as { id?: unknown }).id === 'start')

test('a spare is launched when the first serves, and is told to start when that one dies; then comes the next spare', async (t) => {
  const { platform, handle, echo, events } = await startWithSpare()
  const [first, spare] = platform.launched as [ScriptedEnclave, ScriptedEnclave]
  t.is(platform.launched.length, 2)
  t.false(isStarted(spare))
  t.deepEqual(
    events.map(({ type }) => type),
    ['launching', 'ready', 'spare'],
  )
  first.die()
  await settle()
  t.true(isStarted(spare))
  t.is(platform.launched.length, 2)
  const waiting = echo('hello')
  spare.ready()
  t.is(await waiting, 'hello')
  t.deepEqual(
    spare.calls.map(({ claimedArgument }) => claimedArgument),
    ['hello'],
  )
  await settle()
  t.is(platform.launched.length, 3)
  await handle.close()
  t.deepEqual(
    platform.launched.map(({ terminateCount }) => terminateCount > 0),
    [false, true, true],
  )
})

test('a spare that dies while it waits is made anew after a while, and the relaunch does without it meanwhile', async (t) => {
  const { platform, handle, echo, clock } = await startWithSpare()
  platform.enclave.die()
  await settle()
  t.is(platform.launched.length, 2)
  platform.begin = (enclave) => enclave.ready()
  platform.launched[0]?.die()
  t.is(await echo('hello'), 'hello')
  await settle()
  // One that serves, and its spare.
  t.is(platform.launched.length, 4)
  platform.enclave.die()
  await settle()
  await clock.advance(LIMITS.backoffMaxMs)
  await settle()
  t.is(platform.launched.length, 5)
  await handle.close()
  t.deepEqual(clock.pendingMs, [])
})

test('a spare whose recovery fails is no spare any more: the next attempt is a launch of its own', async (t) => {
  const { platform, handle, echo, clock } = await startWithSpare()
  const spare = platform.enclave
  await echo()
  platform.begin = (enclave) => enclave.ready()
  platform.launched[0]?.die()
  await settle()
  spare.fail('ERR_KMS_UNREACHABLE')
  await settle()
  const waiting = echo('hello')
  await clock.advance(LIMITS.backoffMinMs)
  t.is(await waiting, 'hello')
  t.true(spare.terminateCount > 0)
  await handle.close()
})

test('without `spare` nothing stands by', async (t) => {
  const platform = new ScriptedPlatform()
  const handle = await launch({
    image: scriptedImage(),
    platform,
    store: new MemoryStore(),
    kms: echoKms,
    flow: 'flow-1',
  })
  await settle()
  t.is(platform.launched.length, 1)
  await handle.close()
})

for (const isolation of ['worker', 'process'] as const) {
  test(`a spare holds no key and is not attested until it is needed; then it has all that was acknowledged (${isolation})`, async (t) => {
    const directory = await mkdtemp(join(tmpdir(), 'keyrise-spare-'))
    t.teardown(() => rm(directory, { recursive: true }))
    const image = await buildImage<typeof notebook>(fileURLToPath(new URL('./notebook.enclave.js', import.meta.url)))
    const machine = await SimulatedPlatform.open(join(directory, 'machine'))
    const policy = { platforms: [machine.publicKey], images: [{ name: 'notebook', measurement: image.measurement }] }
    await using kms = await startKms({
      directory: join(directory, 'kms'),
      passphrase: new Uint8Array([1]),
      policy,
      workFactor: 4,
    })
    let exchangeCount = 0
    const counted = faultyKms(kms, ({ at }) => {
      if (at === 'before') exchangeCount++
      return undefined
    })
    const platform = new KillablePlatform(machine)
    const configurations: boolean[] = []
    const watched: typeof platform.launch = (launched, options) => {
      configurations.push(decodeConfiguration(options.configuration).standby === true)
      return platform.launch(launched, options)
    }
    let standsBy = (): void => undefined
    let standing = new Promise<void>((resolve) => (standsBy = resolve))
    await using handle = await launch({
      image,
      platform: { publicKey: platform.publicKey, launch: watched },
      store: new MemoryStore(),
      kms: counted,
      flow: 'flow',
      isolation,
      spare: true,
      ocalls: { pause: () => undefined },
      onEvent: ({ type }) => {
        if (type === 'spare') standsBy()
      },
    })
    await handle.ecalls.write({ page: 'a', bytes: new Uint8Array([1, 2]) })
    const before = exchangeCount
    await standing
    t.is(exchangeCount, before)
    standing = new Promise((resolve) => (standsBy = resolve))
    t.is(await platform.kill('flow', 1), 1)
    t.deepEqual(await handle.ecalls.read('a'), new Uint8Array([1, 2]))
    t.deepEqual(configurations.slice(0, 2), [false, true])
    t.true(exchangeCount > before)
    await standing
    t.is(configurations.length, 3)
  })
}
