import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { initKms, KmsProcess } from '../../bench/kms-process.js'
import { connectKms } from '../../host/index.js'
import { toHex } from '../../protocol/bytes.js'
import { TestPlatform } from '../kms/attested-client.js'
import { fuzzableFrames } from '../kms/fuzz-frames.js'
import { IMAGE } from '../kms/in-process.js'
import { fuzzServer } from '../kms/server-fuzz.js'

const HELP = `npm run fuzz:server -- [--requests N] [--seed S] [--json FILE]

Sends a KMS process N requests, 100,000 unless told: from docs/openapi.json and beyond it, frames of real sessions changed and sent
again, and what is not HTTP. Each must be answered with a code, and all be as it was afterwards.
`
const { values } = parseArgs({
  options: {
    requests: { type: 'string', default: '100000' },
    seed: { type: 'string', default: String(Date.now() % 2 ** 31) },
    json: { type: 'string' },
    help: { type: 'boolean', default: false },
  },
})

const run = async (requests: number, seed: number): Promise<boolean> => {
  const root = await mkdtemp(join(tmpdir(), 'keyrise-fuzz-'))
  try {
    const platform = new TestPlatform()
    const [directory, policy] = [join(root, 'kms'), join(root, 'policy.json')]
    const images = [{ name: 'party', measurement: toHex(IMAGE) }]
    await writeFile(policy, JSON.stringify({ platforms: [toHex(platform.publicKey)], images }))
    await mkdir(directory)
    await initKms(directory)
    await using kms = await KmsProcess.serve(directory, policy)
    await using link = await connectKms(kms.url)
    const { frames, isUnchanged } = await fuzzableFrames(link, platform)
    const { hostname: host, port } = new URL(kms.url)
    const addresses = { enclaves: { host, port: Number(port) }, admin: { path: join(directory, 'admin.sock') } }
    const say = (sent: number) =>
      process.stderr.isTTY && process.stderr.write(`\r${String(sent)} of ${String(requests)} requests`)
    const report = await fuzzServer(addresses, { requests, seed, frames, say: (sent) => void say(sent) })
    if (process.stderr.isTTY) process.stderr.write('\n')
    const changed = (await isUnchanged()) ? [] : ['what an honest client had left is not there any more']
    const violations = [...report.violations, ...changed]
    if (values.json !== undefined)
      await writeFile(values.json, `${JSON.stringify({ ...report, violations }, undefined, 2)}\n`)
    for (const [code, count] of Object.entries(report.codes).sort(([, a], [, b]) => b - a))
      process.stdout.write(`${String(count).padStart(8)} ${code}\n`)
    for (const violation of violations) process.stdout.write(`violation: ${violation}\n`)
    const { seconds } = report
    process.stdout.write(
      `${String(report.requests)} requests, ${String(violations.length)} violations, seed ${String(seed)}, ${seconds.toFixed(0)} s\n`,
    )
    return violations.length === 0
  } finally {
    await rm(root, { recursive: true, force: true })
  }
}

const [requests, seed] = [Number(values.requests), Number(values.seed)]
if (values.help) process.stdout.write(HELP)
else if (!Number.isSafeInteger(requests) || requests < 1 || !Number.isSafeInteger(seed)) {
  process.stderr.write(`--requests and --seed are whole numbers\n${HELP}`)
  process.exitCode = 2
} else if (!(await run(requests, seed))) process.exitCode = 1
