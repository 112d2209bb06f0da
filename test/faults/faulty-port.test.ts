import test from 'ava'
import { checkFaults } from '../../faults/fault-check.js'
import { recordRun } from '../../faults/crash-check.js'
import { LIVE_KINDS } from '../../faults/fault-kinds.js'
import { faultyPortPair, type BoundaryFault, type BoundaryMessage } from '../../faults/faulty-port.js'
import { watchFor } from '../../faults/state-checker.js'
import { encodeCall, encodeReply } from '../../protocol/calls.js'
import messages from '../sweep/scenarios/messages.js'
import streams from '../sweep/scenarios/streams.js'
import rotation from '../sweep/scenarios/rotation.js'

/** What arrives inside of two calls, the second of which `fault` strikes, and of a third. */
const arriving = async (fault: BoundaryFault | undefined) => {
  const delayed: (() => void)[] = []
  const seen: string[] = []
  const done: string[] = []
  let cutCount = 0
  const nameOf = ({ on, name }: BoundaryMessage): string => `${on} ${name}`
  const [host, inside] = faultyPortPair({
    on: 'ecall',
    fault: (message) => (seen.push(nameOf(message)) === 2 ? fault : undefined),
    onDone: (message) => done.push(nameOf(message)),
    delay: (hand) => delayed.push(hand),
    cut: () => cutCount++,
  })
  const arrived: unknown[] = []
  inside.onMessage((message) => arrived.push((message as { id: string }).id))
  for (const id of ['a', 'b', 'c']) {
    const { message, transfer } = encodeCall(id, 'say', id, id === 'c' ? {} : { key: 'once' })
    host.post(message, transfer)
  }
  const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))
  await turn()
  const soon = [...arrived]
  for (const hand of delayed) hand()
  await turn()
  return { soon, later: arrived.slice(soon.length), seen, done, cutCount }
}

test('a message between host and enclave is lost, doubled, replayed, reordered, delayed or the last, as it is told', async (t) => {
  const { soon, seen, done } = await arriving(undefined)
  t.deepEqual(soon, ['a', 'b', 'c'])
  t.deepEqual(seen, ['ecall call say with a key', 'ecall call say with a key', 'ecall call say'])
  t.deepEqual(done, seen)
  t.deepEqual((await arriving('lose')).soon, ['a', 'c'])
  t.deepEqual((await arriving('double')).soon, ['a', 'b', 'b', 'c'])
  t.deepEqual((await arriving('replay')).soon, ['a', 'a', 'c'])
  t.deepEqual((await arriving('late')).soon, ['a', 'c', 'b'])
  const { soon: inTime, later } = await arriving('delay')
  t.deepEqual([inTime, later], [['a', 'c'], ['b']])
  t.is((await arriving('cut')).cutCount, 1)
})

test('an answer is named after its call, and damaged by a bit, or where it has no bytes emptied', async (t) => {
  const seen: string[] = []
  const [host, inside] = faultyPortPair({
    on: 'ocall',
    fault: ({ name }) => (seen.push(name), name.startsWith('answer') ? 'damage' : undefined),
    onDone: () => undefined,
    delay: () => undefined,
    cut: () => undefined,
  })
  const answers: unknown[] = []
  inside.onMessage((message) => answers.push((message as { value: unknown }).value))
  for (const [id, value] of [
    ['1', new Uint8Array([1, 2, 3])],
    ['2', ['a name']],
  ] as const) {
    inside.post(encodeCall(id, 'keyrise:store-get', undefined).message)
    host.post(encodeReply(id, value).message)
  }
  await new Promise((resolve) => setImmediate(resolve))
  t.deepEqual(answers, [new Uint8Array([1, 3, 3]), null])
  t.deepEqual(seen.slice(0, 2), ['call keyrise:store-get', 'answer keyrise:store-get'])
})

test('messages between host and enclave are operations of a run, by name, and a call with a key that comes twice counts once', async (t) => {
  const reference = await recordRun(messages)
  const names = reference.points.map(({ name }) => name)
  for (const name of [
    'ecall party ready #1',
    'ecall party call note with a key #3',
    'ecall party answer note #3',
    'ocall party call rate #1',
    'ocall party answer keyrise:store-put #1',
    'ocall party call keyrise:kms-exchange #1',
  ])
    t.true(names.includes(name), name)
  const at = 'ecall party call note with a key #2'
  const twice = [{ at, fault: 'message to the enclave doubled' }]
  t.is(await checkFaults({ scenario: messages, reference }, twice), 'recovered')
  const again = [{ at, fault: 'message to the enclave replayed' }]
  t.is(await checkFaults({ scenario: messages, reference }, again), 'recovered')
  const gone = [{ at: 'ocall party answer keyrise:store-put #2', fault: 'enclave gone at a message to it' }]
  t.is(await checkFaults({ scenario: messages, reference }, gone), 'recovered')
})

test('only a call with a key may come twice, and what an author’s OCALL answers is the host’s to say', (t) => {
  const strikes = (kind: string, on: 'ecall' | 'ocall', name: string): boolean =>
    LIVE_KINDS.find(({ name: known }) => known === kind)?.strikes({ on, name }) ?? false
  t.true(strikes('message to the enclave doubled', 'ecall', 'party call note with a key #1'))
  t.false(strikes('message to the enclave doubled', 'ecall', 'party call note #1'))
  t.true(strikes('answer to the enclave damaged', 'ocall', 'party answer keyrise:store-get #1'))
  t.false(strikes('answer to the enclave damaged', 'ocall', 'party answer rate #1'))
})

test('messages of streams are operations too: an enclave dies at any of them, and words about a stream go astray', async (t) => {
  const reference = await recordRun(streams)
  const names = reference.points.map(({ name }) => name)
  for (const name of [
    'ecall party stream CREDIT take #1',
    'ecall party stream ITEM take #5',
    'ecall party stream END take #2',
    'ecall party stream ITEM print #1',
    'ocall party stream ITEM lines #3',
  ])
    t.true(names.includes(name), name)
  const strikes = (fault: string, at: string) => checkFaults({ scenario: streams, reference }, [{ at, fault }])
  t.is(await strikes('enclave gone at a message of a stream', 'ecall party stream ITEM take #2'), 'recovered')
  t.is(await strikes('word about a stream lost', 'ecall party stream END take #1'), 'recovered')
  t.is(await strikes('word about a stream doubled', 'ocall party stream CREDIT lines #1'), 'recovered')
  const lost = LIVE_KINDS.find(({ name }) => name === 'word about a stream lost')
  t.false(lost?.strikes({ on: 'ecall', name: 'party stream ITEM take #2' }), 'a host may leave an item out')
})

test('a sweep looks for every key of every keyring that the KMS had, besides the secrets of the scenario', async (t) => {
  const { keys } = await recordRun(rotation)
  const names = keys.map(({ name }) => name)
  for (const name of [
    'KMS identity seed',
    'KMS origin secret',
    'passphrase',
    'root key 2, private key',
    'root key 2, origin seed',
  ])
    t.true(names.includes(name), name)
  const leaks = watchFor(rotation, keys)
  for (const { bytes } of keys) leaks.search('a file', bytes)
  t.deepEqual([...new Set(leaks.take())].sort(), [...new Set(names.map((name) => `${name} in a file`))].sort())
})
