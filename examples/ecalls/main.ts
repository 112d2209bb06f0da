import { mkdtemp } from 'node:fs/promises'
import { buildImage, isKeyriseError, launch, MemoryStore, SimulatedPlatform } from 'keyrise'
import { startKms } from 'keyrise/kms'
import type account from './account.enclave.js'

const run = await mkdtemp('/tmp/keyrise-')
const image = await buildImage<typeof account>('examples/ecalls/account.enclave.ts')
const platform = await SimulatedPlatform.open(`${run}/machine`)
const policy = { platforms: [platform.publicKey], images: [{ name: 'account', measurement: image.measurement }] }
const passphrase = new TextEncoder().encode('correct horse battery staple')
await using kms = await startKms({ directory: `${run}/kms`, passphrase, policy })
const ocalls = {
  rates: function* (currency: string) {
    for (let day = 1; ; day++) yield currency === 'EUR' ? day : 0
  },
}
await using handle = await launch({ image, platform, kms, store: new MemoryStore(), flow: 'account-7', ocalls })
const { ecalls, switchless } = handle

const entries = [
  { amount: 100, note: 'salary' },
  { amount: 20, note: 'found' },
]
console.log('posted, balance', await ecalls.post(undefined, { items: entries }))

// Safe to repeat, whatever became of the first attempt.
const once = { idempotencyKey: 'withdrawal-1' }
console.log('withdrawn, balance', await ecalls.withdraw(50, once))
console.log('repeated, balance', await ecalls.withdraw(50, once))

try {
  await ecalls.withdraw(1000)
} catch (error) {
  if (isKeyriseError(error, 'ERR_APPLICATION')) console.log('refused:', error.reason)
}

for await (const value of ecalls.convert('EUR')) {
  console.log('converted', value)
  if (value > 100) break // ends the enclave's generator, and the host's
}

const signal = AbortSignal.abort(new Error('changed my mind'))
await ecalls.withdraw(1, { signal }).catch((error: unknown) => console.log(String(error)))
console.log('fee', switchless.fee(150))
