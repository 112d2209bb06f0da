import { buildImage, DirectoryStore, launch, SimulatedPlatform } from 'keyrise'
import { KillablePlatform } from 'keyrise/faults'
import { startKms } from 'keyrise/kms'
import type counter from './counter.enclave.js'

/** The host: it launches the enclave, keeps what it seals, and reads none of it. */
const flow = 'counter'
const image = await buildImage<typeof counter>(new URL('counter.enclave.js', import.meta.url))
const platform = new KillablePlatform(await SimulatedPlatform.open('state/machine'))
const policy = { platforms: [platform.publicKey], images: [{ name: 'counter', measurement: image.measurement }] }
// For development the KMS runs in this process. In earnest: `keyrise kms serve` elsewhere, and `connectKms` here.
const passphrase = new TextEncoder().encode('correct horse battery staple')
await using kms = await startKms({ directory: 'state/kms', passphrase, policy })
await using enclave = await launch({ image, platform, kms, store: new DirectoryStore('state/sealed'), flow })

console.log('count:', await enclave.ecalls.add(1))
await platform.kill(flow) // as a power cut would: nothing is wiped, nobody is asked
console.log('count after the enclave was killed:', await enclave.ecalls.add(1))
