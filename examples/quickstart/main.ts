import { mkdtemp } from 'node:fs/promises'
import { buildImage, DirectoryStore, launch, SimulatedPlatform } from 'keyrise'
import { startKms } from 'keyrise/kms'
import type vault from './vault.enclave.js'

const run = await mkdtemp('/tmp/keyrise-')
const image = await buildImage<typeof vault>('examples/quickstart/vault.enclave.ts')
const platform = await SimulatedPlatform.open(`${run}/machine`)
const policy = { platforms: [platform.publicKey], images: [{ name: 'vault', measurement: image.measurement }] }
const passphrase = new TextEncoder().encode('correct horse battery staple')
await using kms = await startKms({ directory: `${run}/kms`, passphrase, policy })
const options = { image, platform, kms, store: new DirectoryStore(`${run}/sealed`), flow: 'notes' }

const first = await launch(options)
console.log('sealed as epoch', await first.ecalls.keep('still here'))
await first.close() // the enclave is gone, and with it every key in its memory
await using second = await launch(options)
console.log('recovered:', await second.ecalls.recall())
