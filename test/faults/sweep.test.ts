import { Buffer } from 'node:buffer'
import test from 'ava'
import { defineScenario, sweep } from '../../faults/index.js'
import { recordRun } from '../../faults/crash-check.js'
import { replay } from '../../faults/shrink.js'
import counter from '../../examples/starter/src/counter.scenario.js'
import checkpoint from '../sweep/scenarios/checkpoint.js'
import { LeakWatch } from '../../faults/leak-watch.js'
import { notebook, secretBytes, secretText } from '../sweep/notebook.js'

test('a sweep recovers a scenario from every operation, with the same choices for the same seed', async (t) => {
  const report = await sweep(checkpoint, { statesMax: 24, seed: 'a', isCrashesOnly: true })
  t.deepEqual(report.violations, [])
  t.is(report.seed, 'a')
  t.true(report.distinctStates >= 24 && report.states > report.distinctStates)
  for (const name of ['kms sync /kms/ledger.log #2', 'host syncDirectory /store/party #1', 'request #1', 'reply #1'])
    t.true(report.crashPoints.includes(name), name)
})

test('a step that is no single checkpoint is found out, as one crash without an unsynced change, and replayed', async (t) => {
  const scenario = defineScenario({
    name: 'torn',
    flows: {
      party: {
        enclave: notebook,
        steps: [
          async ({ ecalls }) => {
            await ecalls.write([{ name: 'password/a', value: 'a' }])
            await ecalls.write([{ name: 'password/b', value: 'b' }])
          },
        ],
      },
    },
  })
  const { violations } = await sweep(scenario, { statesMax: 60, isCrashesOnly: true })
  const [smallest] = violations
  t.regex(smallest?.what ?? '', /party is in a state that never was/)
  const trouble = smallest?.trouble ?? { crashes: [] }
  t.true('crashes' in trouble && trouble.crashes.length === 1)
  if ('crashes' in trouble) t.deepEqual(trouble.crashes[0]?.kept, { host: [], kms: [] })
  t.regex((await replay(scenario, await recordRun(scenario), trouble)) ?? '', /never was/)
})

test('every kind of fault and of damage is tried, and nothing but damage is refused', async (t) => {
  const { faultKinds, violations } = await sweep(counter, { statesMax: 1, seed: 'b', faultsOfKind: 1 })
  t.deepEqual(violations, [])
  t.true(Object.keys(faultKinds).length >= 40)
  t.deepEqual(Object.keys(faultKinds['failed fsync'] ?? {}), ['recovered'])
  t.deepEqual(Object.keys(faultKinds['clone'] ?? {}), ['ERR_FENCED'])
})

test('a secret in a file is found, in any form of text', (t) => {
  const secret = secretBytes('of a file')
  const leaks = new LeakWatch()
  leaks.add('the secret', secret)
  leaks.search('nothing', Buffer.from(secretText('of another').repeat(9).slice(20, 40)))
  t.deepEqual(leaks.take(), [])
  for (const text of [
    secretText('of a file'),
    Buffer.from(secret).toString('hex'),
    `x${Buffer.from([0, ...secret]).toString('base64')}`,
    JSON.stringify([...secret]),
  ])
    leaks.search('file', Buffer.from(text))
  t.deepEqual(leaks.take(), ['the secret in file'])
})

test('a promise that never settles is said, where nothing is left that could settle it', async (t) => {
  const scenario = defineScenario({
    name: 'stuck',
    flows: { party: { enclave: notebook, steps: [() => new Promise(() => undefined)] } },
  })
  await t.throwsAsync(sweep(scenario), { message: /never settles/ })
})
