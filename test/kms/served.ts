import { mkdir, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createKms } from '../../kms/place.js'
import { serveKms, type ServeOptions } from '../../kms/server.js'
import { asciiBytes } from '../../protocol/bytes.js'
import { nodeRandom } from '../../protocol/crypto/primitives.js'
import { Secret } from '../../protocol/crypto/secret.js'
import { nodeFileSystem } from '../../storage/index.js'
import { TestPlatform } from './attested-client.js'
import { IMAGE } from './in-process.js'

export const PASSPHRASE = asciiBytes('correct horse')

interface Teardown {
  teardown: (work: () => Promise<void>) => void
}

/** Directories that go when the test does. */
export const makePlace = async (t: Teardown) => {
  const root = await mkdtemp(join(tmpdir(), 'keyrise-kms-'))
  t.teardown(() => rm(root, { recursive: true, force: true }))
  const [directory, custodyDirectory] = [join(root, 'kms'), join(root, 'custody')]
  await Promise.all([mkdir(directory), mkdir(custodyDirectory)])
  return { root, directory, custody: join(custodyDirectory, 'keyring.age') }
}

export const initPlace = async (place: { directory: string; custody: string }) =>
  createKms({ place, passphrase: Secret.take(PASSPHRASE.slice()), fs: nodeFileSystem, random: nodeRandom, logN: 10 })

/** A KMS over HTTP, on any free port. */
export const serve = async (t: Teardown, options: Partial<ServeOptions> = {}) => {
  const place = await makePlace(t)
  await initPlace(place)
  const platform = new TestPlatform()
  const policy = { platforms: [platform.publicKey], images: [{ name: 'party', measurement: IMAGE }] }
  const served = await serveKms({
    directory: place.directory,
    custody: place.custody,
    passphrase: PASSPHRASE,
    policy,
    port: 0,
    insecureLoopback: true,
    ...options,
  })
  t.teardown(() => served.close())
  return { served, platform, place, policy }
}
