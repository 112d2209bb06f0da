import { buildImage, DirectoryStore, launch, SimulatedPlatform } from 'keyrise'
import { startKms } from 'keyrise/kms'
import type vault from './vault.enclave.js'

const image = await buildImage<typeof vault>('examples/quickstart/vault.enclave.ts')
const platform = await SimulatedPlatform.open('run/quickstart/machine')
const policy = { platforms: [platform.publicKey], images: [{ name: 'vault', measurement: image.measurement }] }
await using kms = await startKms({ directory: 'run/quickstart/kms', passphrase: new TextEncoder().encode('correct horse'), policy })
const options = { image, platform, kms, store: new DirectoryStore('run/quickstart/sealed'), flow: 'notes' }

const first = await launch(options)
console.log('sealed as epoch', await first.ecalls.keep('still here'))
await first.close() // the enclave is gone, and with it every key in its memory
await using second = await launch(options)
console.log('recovered:', await second.ecalls.recall())
