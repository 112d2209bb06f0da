import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import test from 'ava'
import { KillablePlatform } from '../../faults/index.js'
import { buildImage, DirectoryStore, launch, SimulatedPlatform, type Image } from '../../host/index.js'
import { rewrapStore, rotateKms, startKms } from '../../kms/index.js'
import { ROOT_SUITES, type RootSuite } from '../../protocol/statements.js'
import type bulk from './bulk.enclave.js'

// One KMS, whose root key is rotated from suite to suite; for each a flow of its own, in a real enclave that is killed.

const directory = await mkdtemp(join(tmpdir(), 'keyrise-suites-'))
const passphrase = new TextEncoder().encode('correct horse')
const place = { directory: join(directory, 'kms'), passphrase }
const SIZE = 100_000
let image: Image<typeof bulk>
let machine: SimulatedPlatform

test.before(async () => {
  image = await buildImage(fileURLToPath(new URL('./bulk.enclave.js', import.meta.url)))
  machine = await SimulatedPlatform.open(join(directory, 'machine'))
})
test.after.always(() => rm(directory, { recursive: true }))

const start = () =>
  startKms({
    ...place,
    policy: { platforms: [machine.publicKey], images: [{ name: 'bulk', measurement: image.measurement }] },
    workFactor: 4,
  })

const store = () => new DirectoryStore(join(directory, 'sealed'))

/** Writes two payloads straight to the root key, is killed, recovers, and reads both. */
const killAndRecover = async (suite: RootSuite): Promise<string[]> => {
  const kms = await start()
  const platform = new KillablePlatform(machine)
  const before = await launch({ image, platform, store: store(), kms, flow: suite })
  await before.ecalls.write({ count: 2, sizeBytes: SIZE })
  await platform.kill(suite)
  await before.close().catch(() => undefined)
  const after = await launch({ image, platform: machine, store: store(), kms, flow: suite })
  const read = await after.ecalls.readAll(2)
  await after.close()
  await kms.close()
  return read
}

test('with each suite what was sealed before a kill is recovered after it, and a rewrap moves all to the newest', async (t) => {
  for (const [index, suite] of ROOT_SUITES.entries()) {
    if (index > 0) await rotateKms({ ...place, suite })
    t.deepEqual(await killAndRecover(suite), [String(SIZE), String(SIZE)], suite)
  }
  const statuses = new Set<string>()
  for await (const { name, status } of rewrapStore({ ...place, store: store() }))
    statuses.add(`${name.split('/')[0] ?? ''} ${status}`)
  const [last, ...older] = [...ROOT_SUITES].reverse()
  t.deepEqual([...statuses].sort(), [...older.map((suite) => `${suite} rewrapped`), `${last ?? ''} current`].sort())
})
