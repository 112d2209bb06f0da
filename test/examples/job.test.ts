import test from 'ava'
import { execFile } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { DirectoryStore } from '../../host/index.js'
import { buildImage } from '../../platform/image.js'
import { openCustody } from '../../faults/index.js'
import type { DecryptorEnclave } from '../../examples/federated-learning/decryptor.enclave.js'
import { runJob, type JobResult } from '../../examples/federated-learning/job.js'
import { scanInProcess, type LeakScanRequest } from '../../examples/federated-learning/leak-scan.js'
import { modelDigest } from '../../examples/federated-learning/model.js'
import type { PartyEnclave } from '../../examples/federated-learning/party.enclave.js'
import { parseRecordsCsv } from '../../examples/federated-learning/records.js'
import {
  FLOWS,
  KILL_MOMENTS,
  planSchedule,
  withoutKills,
  type Schedule,
} from '../../examples/federated-learning/schedule.js'
import { splitRecords } from '../../examples/federated-learning/split.js'
import { runTampering } from '../../examples/federated-learning/tamper.js'
import { federateInTheClear } from './federate.js'

const SEED = 11
const ROUND_COUNT = 5
const WORK_FACTOR = 10
const main = fileURLToPath(new URL('../../examples/federated-learning/main.js', import.meta.url))
const enclave = (name: string): URL => new URL(`../../examples/federated-learning/${name}.enclave.js`, import.meta.url)
const split = splitRecords(
  parseRecordsCsv(readFileSync('examples/federated-learning/data/breast-cancer-wisconsin.csv', 'utf8')),
  SEED,
)

const root = mkdtempSync(join(tmpdir(), 'keyrise-job-'))
test.after.always(() => {
  rmSync(root, { recursive: true, force: true })
})

const imagesBuilt = Promise.all([
  buildImage<PartyEnclave>(enclave('party')),
  buildImage<DecryptorEnclave>(enclave('decryptor')),
])

const run = async (name: string, schedule: Schedule): Promise<{ directory: string; result: JobResult }> => {
  const [party, decryptor] = await imagesBuilt
  const directory = join(root, name)
  mkdirSync(directory)
  const result = await runJob({
    ...{ directory, split, schedule, images: { party, decryptor }, roundCount: ROUND_COUNT, workFactor: WORK_FACTOR },
    onEvent: () => undefined,
  })
  return { directory, result }
}

const requestFor = (directory: string, { place, receipts }: JobResult): LeakScanRequest => ({
  ...{
    directory,
    custody: place.custody,
    store: join(directory, 'store'),
    flows: FLOWS,
    steps: ['predictions'],
    receipts,
  },
})

test.serial(
  'killed in every way, and the KMS too: the same model bit for bit, nothing lost, nothing leaked',
  async (t) => {
    t.timeout(180_000)
    const schedule = planSchedule({ seed: SEED, kills: 12, roundCount: ROUND_COUNT })
    t.is(new Set(schedule.kills.map(({ moment }) => moment)).size, KILL_MOMENTS.length)
    const killed = await run('killed', schedule)
    const uninterrupted = await run('uninterrupted', withoutKills(schedule))
    t.is(killed.result.modelDigest, uninterrupted.result.modelDigest)
    t.is(killed.result.modelDigest, modelDigest(federateInTheClear(split.shares, schedule, ROUND_COUNT)))
    t.is(killed.result.enclaveKills, 12)
    t.is(killed.result.events.filter(({ type }) => type === 'kms-restored').length, 1)
    t.is(uninterrupted.result.enclaveKills, 0)
    const namesOf = ({ receipts }: JobResult): string[] =>
      FLOWS.flatMap((flow) => Object.keys(receipts[flow] ?? {}).map((name) => `${flow} ${name}`))
    t.deepEqual(namesOf(killed.result).sort(), namesOf(uninterrupted.result).sort())

    const scan = await scanInProcess(requestFor(killed.directory, killed.result), killed.result.passphrase)
    t.deepEqual(scan.secretsLost, [])
    t.deepEqual(scan.leaks, [])
    t.deepEqual(scan.unsearchable, [])
    t.is(scan.secretsStored, namesOf(killed.result).length)
    for (const kind of [
      'authorization',
      'business-key',
      'final-result',
      'interaction-id',
      'intermediate-result',
      'password',
      'session',
    ])
      t.true(scan.kinds.includes(kind), kind)

    // The search is worth what it finds: a session key in a log, and a receipt for something else.
    await plantLeak(killed.directory, killed.result)
    const receipts = {
      ...killed.result.receipts,
      oncology: { ...killed.result.receipts['oncology'], 'password/archive': '00'.repeat(32) },
    }
    const found = await scanInProcess(
      { ...requestFor(killed.directory, killed.result), receipts },
      killed.result.passphrase,
    )
    t.deepEqual(
      found.leaks.map(({ secret, form }) => `${secret} ${form}`).sort(),
      // Both sides of a session hold the same key.
      ['decryptor: session/oncology base64', 'oncology: session/decryptor base64'],
    )
    t.deepEqual(found.secretsLost, ['oncology: password/archive'])
  },
)

const plantLeak = async (directory: string, { place, passphrase }: JobResult): Promise<void> => {
  using custody = await openCustody({
    custody: place.custody,
    passphrase,
    store: new DirectoryStore(join(directory, 'store')),
    flows: ['oncology'],
  })
  const session = custody.entries.get('oncology')?.get('session/decryptor') ?? new Uint8Array()
  writeFileSync(join(directory, 'debug.log'), `connected, key ${Buffer.from(session).toString('base64')}\n`)
}

test.serial('an aggregator and a host that cheat are refused, each by its code, and the job goes on', async (t) => {
  t.timeout(120_000)
  const [party, decryptor] = await imagesBuilt
  const directory = join(root, 'tampered')
  mkdirSync(directory)
  const lines: string[] = []
  const line = (text = ''): void => void lines.push(text)
  const isGood = await runTampering({
    directory,
    split,
    images: { party, decryptor },
    line,
    paint: (_mood, text) => text,
  })
  t.true(isGood, lines.join('\n'))
})

const start = async (...args: string[]): Promise<{ code: number; stdout: string; stderr: string }> => {
  try {
    return { code: 0, ...(await promisify(execFile)(process.execPath, [main, ...args])) }
  } catch (error) {
    return error as { code: number; stdout: string; stderr: string }
  }
}

test('--help says what there is; a wrong flag or number says so and exits with 2', async (t) => {
  const help = await start('--help')
  t.is(help.code, 0)
  t.regex(help.stdout, /--seed N[^]*--kills N[^]*--json FILE[^]*--tamper/)
  for (const args of [['--nonsense'], ['--kills', 'many'], ['--kills', '61'], ['--seed', '-1'], ['surplus']]) {
    const { code, stderr } = await start(...args)
    t.is(code, 2, args.join(' '))
    t.regex(stderr, /--seed N/)
  }
})
