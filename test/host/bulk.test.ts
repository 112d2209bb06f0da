import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import test from 'ava'
import { faultyKms, faultyStore, KillablePlatform, type FaultPlan } from '../../faults/index.js'
import {
  buildImage,
  connectKms,
  DirectoryStore,
  launch,
  SimulatedPlatform,
  type Image,
  type KmsLink,
} from '../../host/index.js'
import { startKms, type EmbeddedKms } from '../../kms/index.js'
import { toHex } from '../../protocol/bytes.js'
import { ended, firstLine, run, start } from '../cli/command.js'
import type bulk from './bulk.enclave.js'

// Real enclaves, and KMSs in a worker or a process of their own. One image and platform serve all tests.

const directory = await mkdtemp(join(tmpdir(), 'keyrise-bulk-'))
const PASSPHRASE = 'correct horse'
const SIZE = 5 * 1024 * 1024
let image: Image<typeof bulk>
let machine: SimulatedPlatform
let kms: EmbeddedKms

test.before(async () => {
  image = await buildImage(fileURLToPath(new URL('./bulk.enclave.js', import.meta.url)))
  machine = await SimulatedPlatform.open(join(directory, 'machine'))
  kms = await startKms({
    directory: join(directory, 'kms'),
    passphrase: new TextEncoder().encode(PASSPHRASE),
    policy: { platforms: [machine.publicKey], images: [{ name: 'bulk', measurement: image.measurement }] },
    workFactor: 4,
  })
})
test.after.always(async () => {
  await kms.close()
  await rm(directory, { recursive: true })
})

const open = async (flow: string, options: { store?: FaultPlan; link?: KmsLink } = {}) => {
  const platform = new KillablePlatform(machine)
  const store = new DirectoryStore(join(directory, 'sealed'))
  const handle = await launch({
    image,
    platform,
    store: options.store === undefined ? store : faultyStore(store, options.store),
    kms: options.link ?? kms,
    flow,
  })
  return { platform, handle, ecalls: handle.ecalls }
}

test('of three payloads the damaged one fails alone', async (t) => {
  const { handle, ecalls } = await open('damaged')
  await ecalls.write({ count: 3, sizeBytes: SIZE })
  const place = join(directory, 'sealed', 'damaged')
  const [, second] = (await readdir(place)).filter((name) => name.endsWith('.payload')).sort()
  const path = join(place, second as string)
  const payload = await readFile(path)
  payload[3_000_000] = (payload[3_000_000] as number) ^ 1
  await writeFile(path, payload)
  t.deepEqual(await ecalls.readAll(3), [String(SIZE), 'ERR_DIGEST_MISMATCH', String(SIZE)])
  // Also in an enclave that has sealed none of it.
  await handle.close()
  const again = await open('damaged')
  t.deepEqual(await again.ecalls.readAll(3), [String(SIZE), 'ERR_DIGEST_MISMATCH', String(SIZE)])
  await again.handle.close()
})

test('a bulk read is cancelled from within the enclave', async (t) => {
  const { handle, ecalls } = await open('cancelled')
  await ecalls.write({ count: 3, sizeBytes: 100 })
  t.is(await ecalls.cancel(3), 'pending-data/part-0')
  await handle.close()
})

test('an enclave that is killed in mid-read leaves nothing that hinders the next', async (t) => {
  let killIn = 0
  const { platform, handle, ecalls } = await open('killed', {
    store: async ({ operation, at }) => {
      if (operation === 'store-read' && at === 'after' && killIn > 0 && --killIn === 0) await platform.kill('killed')
      return undefined
    },
  })
  await ecalls.write({ count: 3, sizeBytes: SIZE })
  // Six small reads come first: a header and a nonce of each.
  for (killIn of [3, 8, 14, 20]) {
    await t.throwsAsync(ecalls.readAll(3), { code: 'ERR_ENCLAVE_LOST' })
    t.is(killIn, 0)
  }
  t.deepEqual(await ecalls.readAll(3), [String(SIZE), String(SIZE), String(SIZE)])
  await handle.close()
})

test('a KMS killed with SIGKILL in mid-read, and started again, is got over', async (t) => {
  const place = join(directory, 'served')
  const policy = join(directory, 'policy.json')
  const images = [{ name: 'bulk', measurement: toHex(image.measurement) }]
  await writeFile(policy, JSON.stringify({ platforms: [toHex(machine.publicKey)], images }))
  const at = ['--directory', place, '--custody', join(directory, 'keyring.age'), '--passphrase-fd', '3', '--json']
  await run(['kms', 'init', ...at, '--work-factor', '10'], `${PASSPHRASE}\n`)
  const serve = async (port: string) => {
    const child = start(['kms', 'serve', ...at, '--insecure-loopback', '--policy', policy, '--port', port], PASSPHRASE)
    const { url } = JSON.parse(await firstLine(child)) as { url: string }
    return { child, url }
  }
  let served = await serve('0')
  t.teardown(() => void served.child.kill('SIGKILL'))
  await using link = await connectKms(served.url)
  let restarted: Promise<void> | undefined
  let exchangeCount = -1
  const { handle, ecalls } = await open('outlived', {
    link: faultyKms(link, async ({ at: moment }) => {
      // What is asked while the KMS is away waits for it; what was under way is lost.
      if (moment === 'before') await restarted
      else if (exchangeCount >= 0 && ++exchangeCount === 6) {
        served.child.kill('SIGKILL')
        restarted = ended(served.child).then(async () => {
          served = await serve(new URL(served.url).port)
        })
      }
      return undefined
    }),
  })
  await ecalls.write({ count: 3, sizeBytes: SIZE })
  exchangeCount = 0
  t.deepEqual(await ecalls.readAll(3), [String(SIZE), String(SIZE), String(SIZE)])
  t.not(restarted, undefined)
  await restarted
  await handle.close()
})
