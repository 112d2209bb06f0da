import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { inspect } from 'node:util'
import test from 'ava'
import { Recorder } from '../../faults/index.js'
import { printOutput } from '../../host/debug-output.js'
import {
  buildImage,
  launch,
  MemoryStore,
  SimulatedPlatform,
  type EnclaveEvent,
  type EnclaveHandle,
  type Image,
  type Platform,
} from '../../host/index.js'
import { startKms, type EmbeddedKms } from '../../kms/index.js'
import { CANARY } from './outspoken.enclave.js'
import type outspoken from './outspoken.enclave.js'

// One image of each kind, and a KMS for each, serve all tests.

const directory = mkdtempSync(join(tmpdir(), 'keyrise-debug-'))
const MODULE = fileURLToPath(new URL('./outspoken.enclave.js', import.meta.url))
const SOURCE = 'test/host/outspoken.enclave.ts'
const PASSPHRASE = new TextEncoder().encode('correct horse')

let debug: Image<typeof outspoken>
let production: Image<typeof outspoken>
let machine: SimulatedPlatform
let open: EmbeddedKms
let strict: EmbeddedKms
const warnings: Error[] = []

test.before(async () => {
  process.on('warning', (warning) => warnings.push(warning))
  debug = await buildImage(MODULE, { debug: true })
  production = await buildImage(MODULE)
  machine = await SimulatedPlatform.open(join(directory, 'machine'))
  const images = [
    { name: 'debug', measurement: debug.measurement },
    { name: 'production', measurement: production.measurement },
  ]
  const policy = { platforms: [machine.publicKey], images }
  const options = { passphrase: PASSPHRASE, workFactor: 4 }
  open = await startKms({ ...options, directory: join(directory, 'open'), policy: { ...policy, allowDebug: true } })
  strict = await startKms({ ...options, directory: join(directory, 'strict'), policy })
})
test.after.always(async () => {
  await open.close()
  await strict.close()
  rmSync(directory, { recursive: true })
})

type Outspoken = EnclaveHandle<typeof outspoken>

let count = 0
const withEnclave = async (
  image: Image<typeof outspoken>,
  use: (enclave: Outspoken, events: EnclaveEvent[]) => Promise<void>,
  platform: Platform = machine,
): Promise<void> => {
  const events: EnclaveEvent[] = []
  const enclave = await launch({
    image,
    platform,
    kms: open,
    store: new MemoryStore(),
    flow: `flow-${String(count++)}`,
    onEvent: (event) => events.push(event),
  })
  try {
    await use(enclave, events)
  } finally {
    await enclave.close()
  }
}

const settled = async (call: Promise<unknown>): Promise<Error> => {
  try {
    await call
  } catch (error) {
    if (error instanceof Error) return error
  }
  throw new Error('the call did not fail')
}

const outputs = (events: readonly EnclaveEvent[]): string[] =>
  events.filter((event) => event.type === 'output').map(({ level, text }) => `${level}: ${text}`)

/** The line of the source that a remark marks. */
const lineOf = (remark: string): number => {
  const lines = readFileSync(SOURCE, 'utf8').split('\n')
  return 1 + lines.findIndex((line) => line.endsWith(`// here: ${remark}`))
}

test('an error of a debug image has the author’s own file, line and function, and what caused it', async (t) => {
  await withEnclave(debug, async ({ ecalls }) => {
    const error = await settled(ecalls.throws('now'))
    t.like(error, { code: 'ERR_ENCLAVE_FAILED' })
    const stack = error.stack ?? ''
    t.regex(
      stack,
      new RegExp(`OwnError: ${CANARY} now\\n +at failDeep \\(keyrise/${SOURCE}:${String(lineOf('throws'))}:9\\)`),
    )
    t.regex(stack, new RegExp(`hint: "${CANARY} of a field"`))
    t.regex(stack, new RegExp(`\\[cause\\]: RangeError: ${CANARY} of a cause\\n +at failDeep \\(keyrise/${SOURCE}`))
    t.false(stack.includes('node:internal'))
    t.true(inspect(error).includes(`failDeep (keyrise/${SOURCE}`))
  })
})

test('stacks go on across await; a thrown text, a wrong reply and a refusal say what they are', async (t) => {
  await withEnclave(debug, async ({ ecalls }) => {
    const rejected = await settled(ecalls.rejects('later'))
    t.true(rejected.stack?.includes(`${SOURCE}:${String(lineOf('rejects'))}:14`), rejected.stack)
    const text = await settled(ecalls.throwsText(''))
    t.regex(text.stack ?? '', new RegExp(`in the enclave:\\n +${CANARY}`))
    const wrong = await settled(ecalls.repliesWrongly(''))
    t.like(wrong, { code: 'ERR_REPLY_INVALID' })
    t.regex(wrong.stack ?? '', /schema\.ts:\d+/)
    const refused = await settled(ecalls.refuses(''))
    t.like(refused, { code: 'ERR_APPLICATION', reason: 'too-late' })
    t.regex(refused.stack ?? '', new RegExp(`cause[^]*at .*${SOURCE}:\\d+`))
    const undeclared = await settled(ecalls.refusesOddly(''))
    t.like(undeclared, { code: 'ERR_ENCLAVE_FAILED' })
    t.regex(undeclared.stack ?? '', new RegExp(`A refusal that is not declared[^]*cause[^]*at .*${SOURCE}:\\d+`))
  })
})

test('what a debug image prints arrives as events, in order, and cannot move the cursor', async (t) => {
  await withEnclave(debug, async ({ ecalls }, events) => {
    t.is(await ecalls.prints('this'), 'this')
    while (outputs(events).length < 4) await new Promise((resolve) => setImmediate(resolve))
    const [log, error, written, warning] = outputs(events)
    t.is(log, `log: ${CANARY} this { list: [ 1, "two", Uint8Array(2) [ 0, 0 ] ] }`)
    t.regex(error ?? '', new RegExp(`^error: OwnError: ${CANARY} printed\\n +at .*${SOURCE}:\\d+:\\d+`))
    t.is(written, `log: ${CANARY} written`)
    t.is(warning, `warn: ${CANARY} \ufffd[2Jcursor`)
  })
})

test('five thousand lines arrive, each once', async (t) => {
  await withEnclave(debug, async ({ ecalls }, events) => {
    await ecalls.printsMuch(5000)
    while (outputs(events).length < 5000) await new Promise((resolve) => setImmediate(resolve))
    t.deepEqual(
      outputs(events),
      Array.from({ length: 5000 }, (_, index) => `log: line ${String(index)}`),
    )
  })
})

test('a debug image that dies says why, after all that it printed before', async (t) => {
  await withEnclave(debug, async ({ ecalls }, events) => {
    await t.throwsAsync(ecalls.lastWords('rejected'), { code: 'ERR_ENCLAVE_LOST' })
    const [first, last] = outputs(events)
    t.is(first, `log: ${CANARY} first`)
    t.regex(last ?? '', new RegExp(`^error: OwnError: ${CANARY} rejected\\n +at .*${SOURCE}`))
  })
  await withEnclave(debug, async ({ ecalls }, events) => {
    await t.throwsAsync(ecalls.diesLater('thrown'), { code: 'ERR_ENCLAVE_LOST' })
    const line = String(lineOf('throws'))
    t.regex(outputs(events)[0] ?? '', new RegExp(`^error: OwnError: ${CANARY} thrown\\n +at failDeep .*:${line}:9`))
  })
})

test('of the same failures, a production image tells codes: not one byte of a stack, a path or a text', async (t) => {
  const spool = join(directory, 'spool')
  const recorder = new Recorder(spool)
  const errors: Error[] = []
  const printed: string[] = []
  await withEnclave(
    production,
    async ({ ecalls }, events) => {
      for (const name of ['throws', 'rejects', 'throwsText', 'repliesWrongly', 'diesLater', 'lastWords'] as const)
        errors.push(await settled(ecalls[name]('x')))
      await ecalls.prints('x')
      printed.push(...outputs(events))
    },
    recorder.platform(machine),
  )
  const { files } = recorder
  recorder[Symbol.dispose]()
  t.deepEqual(printed, [])
  const left = files.filter((file) => file.includes('from-enclave')).map((file) => readFileSync(file, 'latin1'))
  t.is(left.length, 2)
  for (const text of [...left, ...errors.map((error) => inspect(error, { depth: 9 }))])
    for (const trace of [CANARY, 'OwnError', 'failDeep', '.enclave', 'worker eval', 'trace'])
      t.false(text.includes(trace), trace)
  t.true(left.join().includes('ERR_ENCLAVE_FAILED'))
})

test('a production image has no way to tell: neither the code nor the names nor a path are in it', (t) => {
  const { source } = production
  for (const trace of ['keyriseSourceMap', 'prepareStackTrace', 'failDeep', 'outspoken.enclave', SOURCE])
    t.false(source.includes(trace), trace)
  t.true(debug.source.includes('keyriseSourceMap'))
  t.false(debug.source.includes(fileURLToPath(new URL('../../..', import.meta.url))), 'no absolute path')
  t.deepEqual([debug.manifest.debug, production.manifest.debug], [true, false])
  t.notDeepEqual(debug.measurement, production.measurement)
})

test('a KMS gives a debug image nothing, unless its policy has allowDebug', async (t) => {
  const options = { image: debug, platform: machine, store: new MemoryStore(), flow: 'refused' }
  await t.throwsAsync(launch({ ...options, kms: strict }), { code: 'ERR_EVIDENCE_REFUSED' })
  await using enclave = await launch({ ...options, kms: open, onEvent: () => undefined })
  t.is(await enclave.ecalls.prints('x'), 'x')
})

test('a KMS that allows debug images says so when it starts, once', (t) => {
  const said = warnings.filter((warning) => 'code' in warning && warning.code === 'KEYRISE_ALLOW_DEBUG')
  t.is(said.length, 1)
})

test('where nobody listens to events, output goes to standard error, under the image’s name', (t) => {
  const written: unknown[] = []
  const write = process.stderr.write.bind(process.stderr)
  process.stderr.write = (chunk: unknown) => written.push(chunk) > 0
  try {
    printOutput('party')({ atMs: 0, type: 'output', level: 'log', text: 'one\ntwo' })
    printOutput('party')({ atMs: 0, type: 'closed' })
  } finally {
    process.stderr.write = write
  }
  t.deepEqual(written, ['[party] one\n[party] two\n'])
})
