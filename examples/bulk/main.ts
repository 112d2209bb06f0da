import { randomBytes } from 'node:crypto'
import { mkdtemp, open, readdir } from 'node:fs/promises'
import { buildImage, DirectoryStore, launch, SimulatedPlatform } from 'keyrise'
import { startKms } from 'keyrise/kms'
import type ciphertexts from './ciphertexts.enclave.js'

const run = await mkdtemp('/tmp/keyrise-')
const image = await buildImage<typeof ciphertexts>('examples/bulk/ciphertexts.enclave.ts')
const platform = await SimulatedPlatform.open(`${run}/machine`)
const policy = { platforms: [platform.publicKey], images: [{ name: 'ciphertexts', measurement: image.measurement }] }
const passphrase = new TextEncoder().encode('correct horse battery staple')
await using kms = await startKms({ directory: `${run}/kms`, passphrase, policy })
const options = { image, platform, kms, store: new DirectoryStore(`${run}/sealed`), flow: 'rounds' }

const first = await launch(options)
for (const round of [1, 2, 3]) await first.ecalls.keep({ round, ciphertext: randomBytes(5_000_000) })
await first.close()

// The disk damages the second payload.
const payloads = (await readdir(`${run}/sealed/rounds`)).filter((name) => /^direct.*payload$/.test(name)).sort()
const file = await open(`${run}/sealed/rounds/${payloads[1]}`, 'r+')
await file.write(new Uint8Array([1, 2, 3, 4]), 0, 4, 2_000_000)
await file.close()

await using second = await launch(options)
for (const line of await second.ecalls.readAll()) console.log(line)
