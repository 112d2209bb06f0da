import test from 'ava'
import * as v from 'valibot'
import { defineEnclave, ecall, ocall, refuse } from '../../enclave/index.js'
import { launchInProcess, startInProcessKms } from '../../faults/index.js'
import { KeyriseError, MemoryStore, type EnclaveEvent } from '../../host/index.js'

const ask = ocall({ input: v.string(), output: v.pipe(v.number(), v.minValue(0)) })
const text = (value: string): Uint8Array => new TextEncoder().encode(value)

const counter = defineEnclave({
  name: 'counter',
  svn: 2,
  ecalls: {
    add: ecall({ input: v.pipe(v.number(), v.integer()), output: v.number() }, async ({ flow }, by) => {
      const stored = await flow.read('intermediate-result/count')
      const count = by + (stored === undefined ? 0 : Number(new TextDecoder().decode(stored)))
      await flow.checkpoint({ 'intermediate-result/count': text(String(count)) })
      return count
    }),
    question: ecall({ input: v.string(), output: v.number(), ocalls: { ask } }, ({ ocalls }, what) => ocalls.ask(what)),
    fail: ecall({ input: v.undefined(), output: v.undefined() }, () => {
      throw new TypeError('broken')
    }),
    refuse: ecall({ input: v.undefined(), output: v.undefined() }, () => refuse('late')),
    hang: ecall({ input: v.undefined(), output: v.undefined() }, () => new Promise<undefined>(() => undefined)),
    reply: ecall({ input: v.undefined(), output: v.number() }, () => 'seven' as unknown as number),
    meet: ecall({ input: v.undefined(), output: v.array(v.string()) }, async ({ flow }) => {
      await flow.publish({ hello: text('x') })
      return (await flow.roster()).map((member) => member.flow)
    }),
  },
  ocalls: { ask },
  refusals: { late: 'the round is over' },
})
const ocalls = { ask: () => 7 }

test('a definition runs in this thread, typed and checked as an image is', async (t) => {
  const told: unknown[] = []
  await using enclave = await launchInProcess(counter, { ocalls, onError: (error) => told.push(error) })
  t.is(await enclave.ecalls.add(2), 2)
  t.is(await enclave.ecalls.add(3), 5)
  await t.throwsAsync(enclave.ecalls.add(1.5), { code: 'ERR_ARGUMENT_INVALID' })
  await t.throwsAsync(enclave.ecalls.add(new Uint8Array(new SharedArrayBuffer(8)) as unknown as number), {
    code: 'ERR_SHARED_MEMORY',
  })
  await t.throwsAsync(enclave.ecalls.reply(), { code: 'ERR_REPLY_INVALID' })
  const refusal = await t.throwsAsync(enclave.ecalls.refuse(), { instanceOf: KeyriseError, code: 'ERR_APPLICATION' })
  t.is(refusal.reason, 'late')
  t.deepEqual(told, [])
})

test('what a handler throws is told to the test, and to the host as a code', async (t) => {
  const told: unknown[] = []
  await using enclave = await launchInProcess(counter, { ocalls, onError: (error) => told.push(error) })
  const error = await t.throwsAsync(enclave.ecalls.fail(), { code: 'ERR_ENCLAVE_FAILED' })
  t.false(String(error.stack).includes('broken'))
  t.true(told[0] instanceof TypeError && told[0].message === 'broken' && told[0].stack?.includes('in-process.test'))
})

test('a host’s answers to OCALLs are hostile here too', async (t) => {
  for (const [answer, expected] of [
    [7, undefined],
    [-1, 'ERR_REPLY_INVALID'],
    ['7', 'ERR_REPLY_INVALID'],
  ] as const) {
    await using enclave = await launchInProcess(counter, {
      ocalls: { ask: () => answer as number },
      onError: () => undefined,
    })
    const call = enclave.ecalls.question('how many')
    if (expected === undefined) t.is(await call, 7)
    else await t.throwsAsync(call, { code: expected })
  }
  await t.throwsAsync(launchInProcess(counter, { ocalls: {} as typeof ocalls }), { code: 'ERR_OCALL_UNKNOWN' })
})

test('the limits are those of a launch', async (t) => {
  await using enclave = await launchInProcess(counter, { ocalls, limits: { messageSizeBytesMax: 1024 } })
  await t.throwsAsync(enclave.ecalls.question('x'.repeat(1000)), { code: 'ERR_SIZE_LIMIT' })
  t.is(await enclave.ecalls.question('x'), 7)
})

test('a crash loses what was in flight and nothing that was committed; the next call finds it recovered', async (t) => {
  const events: EnclaveEvent[] = []
  await using enclave = await launchInProcess(counter, { ocalls, onEvent: (event) => events.push(event) })
  t.is(await enclave.ecalls.add(2), 2)
  const hanging = t.throwsAsync(enclave.ecalls.hang(), { code: 'ERR_ENCLAVE_LOST' })
  await enclave.crash()
  await hanging
  t.is(await enclave.ecalls.add(3), 5)
  t.deepEqual(
    events.map(({ type }) => type),
    ['launching', 'ready', 'lost', 'launching', 'ready'],
  )
})

test('at whichever step a checkpoint is cut short, it has happened or it has not', async (t) => {
  for (let step = 0; step < 40; step++) {
    await using enclave = await launchInProcess(counter, { ocalls })
    await enclave.ecalls.add(1)
    const call = enclave.ecalls.add(1).then(
      () => true,
      () => false,
    )
    for (let turn = 0; turn < step; turn++) await new Promise((resolve) => setImmediate(resolve))
    await enclave.crash()
    const isAcknowledged = await call
    const count = await enclave.ecalls.add(0)
    t.true(isAcknowledged ? count === 2 : count === 1 || count === 2, `step ${String(step)}: ${String(count)}`)
  }
})

test('a dropped instance reaches nobody: not the store, not the ledger', async (t) => {
  const store = new MemoryStore()
  const gate = { open: () => {} }
  const opened = new Promise<void>((resolve) => (gate.open = resolve))
  const late = defineEnclave({
    name: 'late',
    svn: 1,
    ecalls: {
      write: ecall({ input: v.undefined(), output: v.number() }, async ({ flow }) => {
        await opened
        return flow.checkpoint({ 'session/late': text('from a dead instance') })
      }),
      list: ecall({ input: v.undefined(), output: v.array(v.string()) }, ({ flow }) =>
        flow.list().map(({ name }) => name),
      ),
    },
  })
  await using enclave = await launchInProcess(late, { store })
  const written = t.throwsAsync(enclave.ecalls.write(), { code: 'ERR_ENCLAVE_LOST' })
  await new Promise((resolve) => setImmediate(resolve))
  await enclave.crash()
  await written
  t.deepEqual(await enclave.ecalls.list(), [])
  const before = await store.list('')
  gate.open()
  for (let turn = 0; turn < 50; turn++) await new Promise((resolve) => setImmediate(resolve))
  t.deepEqual(await store.list(''), before)
})

test('a flow is opened again from its store and its KMS; members of a task meet through one', async (t) => {
  await using kms = await startInProcessKms()
  const store = new MemoryStore()
  const first = await launchInProcess(counter, { ocalls, store, kms })
  await first.ecalls.add(4)
  await first.close()
  await using second = await launchInProcess(counter, { ocalls, store, kms })
  t.is(await second.ecalls.add(0), 4)
  await using one = await launchInProcess(counter, { ocalls, kms, flow: 'one', task: 'together' })
  await using two = await launchInProcess(counter, { ocalls, kms, flow: 'two', task: 'together' })
  await one.ecalls.meet()
  t.deepEqual((await two.ecalls.meet()).sort(), ['one', 'two'])
})

test('another store than the one that the KMS knows is a rollback or a loss, here as everywhere', async (t) => {
  await using kms = await startInProcessKms()
  const first = await launchInProcess(counter, { ocalls, kms })
  await first.ecalls.add(4)
  await first.close()
  await t.throwsAsync(launchInProcess(counter, { ocalls, kms }), { code: 'ERR_STATE_LOST' })
})

test('what is no definition is refused', async (t) => {
  await t.throwsAsync(launchInProcess({} as typeof counter, { ocalls }), { code: 'ERR_CONFIG_INVALID' })
})
