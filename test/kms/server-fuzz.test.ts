import { join } from 'node:path'
import test from 'ava'
import { connectKms } from '../../host/kms.js'
import { fuzzableFrames } from './fuzz-frames.js'
import { serve } from './served.js'
import { fuzzServer } from './server-fuzz.js'

const SEED = Number(process.env['FUZZ_SEED'] ?? Date.now() % 2 ** 31)

test(`requests from the description of a KMS and beyond it are answered with codes (seed ${String(SEED)})`, async (t) => {
  t.timeout(120_000)
  const { served, platform, place } = await serve(t)
  await using link = await connectKms(served.url)
  const { frames, isUnchanged } = await fuzzableFrames(link, platform)
  const { hostname: host, port } = new URL(served.url)
  const addresses = { enclaves: { host, port: Number(port) }, admin: { path: join(place.directory, 'admin.sock') } }
  const report = await fuzzServer(addresses, { requests: 3000, seed: SEED, frames })
  t.deepEqual(report.violations, [])
  t.is(report.requests, 3000)
  for (const code of ['ok', 'ERR_REQUEST_INVALID', 'ERR_SIZE_LIMIT', 'ERR_SESSION_INVALID'])
    t.true((report.codes[code] ?? 0) > 0, code)
  t.true(await isUnchanged())
})
