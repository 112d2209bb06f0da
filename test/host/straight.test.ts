import { mkdir, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import test from 'ava'
import { KillablePlatform } from '../../faults/index.js'
import { buildImage, connectKms, DirectoryStore, launch, SimulatedPlatform } from '../../host/index.js'
import { serveKms, type KmsEvent } from '../../kms/index.js'
import { initPlace, PASSPHRASE } from '../kms/served.js'
import type notebook from './notebook.enclave.js'

test('M13: a real enclave recovers by a header that the KMS reads in a registered store, and no host relays one', async (t) => {
  const root = await mkdtemp(join(tmpdir(), 'keyrise-straight-'))
  t.teardown(() => rm(root, { recursive: true }))
  const place = { directory: join(root, 'kms'), custody: join(root, 'keyring.age') }
  const sealed = join(root, 'sealed')
  await Promise.all([mkdir(place.directory), mkdir(sealed)])
  await initPlace(place)
  const image = await buildImage<typeof notebook>(fileURLToPath(new URL('./notebook.enclave.js', import.meta.url)))
  const machine = await SimulatedPlatform.open(join(root, 'machine'))
  const events: KmsEvent[] = []
  await using served = await serveKms({
    ...place,
    passphrase: PASSPHRASE,
    policy: { platforms: [machine.publicKey], images: [{ name: 'notebook', measurement: image.measurement }] },
    stores: { party: { directory: sealed } },
    port: 0,
    insecureLoopback: true,
    onEvent: (event) => events.push(event),
  })
  await using kms = await connectKms(served.url)
  const pause = (): undefined => undefined
  const platform = new KillablePlatform(machine)
  const options = {
    image,
    store: new DirectoryStore(sealed),
    kms,
    kmsStore: 'party',
    flow: 'straight',
    ocalls: { pause },
  }
  await using handle = await launch({ ...options, platform })
  await handle.ecalls.write({ page: 'a', bytes: new Uint8Array([1, 2]) })
  await platform.kill('straight')
  t.deepEqual(await handle.ecalls.read('a'), new Uint8Array([1, 2]))
  const asked = events.flatMap(({ event }) => (event.startsWith('unwrap') || event === 'failed' ? [event] : []))
  t.deepEqual([...new Set(asked)], ['unwrap-stored'])
  await t.throwsAsync(launch({ ...options, platform, kmsStore: '/srv/sealed' }), { code: 'ERR_NAME_INVALID' })
})
