import { MessageChannel, type MessagePort } from 'node:worker_threads'
import test, { type ExecutionContext } from 'ava'
import { encodeCall } from '../../protocol/calls.js'
import type { KeyriseError } from '../../protocol/errors.js'
import type { CallId } from '../../protocol/ports.js'
import { createRing } from '../../protocol/ring.js'
import { RingPort } from '../../protocol/ring-port.js'

const TAIL = 0
const HEADER_WORDS = 64

interface World {
  readonly inside: RingPort
  readonly outside: RingPort
  readonly beside: { readonly inside: MessagePort; readonly outside: MessagePort }
  /** The ring into the enclave. */
  readonly into: SharedArrayBuffer
}

/** Both ends on one thread: what is asynchronous stays so. */
const withPorts = async (
  t: ExecutionContext,
  use: (world: World) => Promise<void> | void,
  ringSizeBytes = 256 * 1024,
): Promise<void> => {
  const [into, outOf] = [createRing(ringSizeBytes), createRing(ringSizeBytes)]
  const { port1, port2 } = new MessageChannel()
  const end = (beside: MessagePort, incoming: SharedArrayBuffer, outgoing: SharedArrayBuffer, hostile: boolean) =>
    new RingPort({ beside, incoming, outgoing, defer: setImmediate, heedsBackpressure: hostile })
  const inside = end(port1, into, outOf, true)
  const outside = end(port2, outOf, into, false)
  try {
    await use({ inside, outside, beside: { inside: port1, outside: port2 }, into })
  } finally {
    inside.close()
    outside.close()
  }
  t.pass()
}

/** Gathers what arrives, until there are `count`. */
const arrivals = (port: RingPort) => {
  const messages: unknown[] = []
  const sizes: (number | undefined)[] = []
  const refusals: (readonly [CallId | undefined, KeyriseError])[] = []
  let look = () => {}
  port.onMessage(
    (message, sizeBytes) => {
      messages.push(message)
      sizes.push(sizeBytes)
      look()
    },
    (id, error) => {
      refusals.push([id, error])
      look()
    },
  )
  const reached = (done: () => boolean) =>
    new Promise<void>((resolve) => {
      look = () => {
        if (done()) resolve()
      }
      look()
    })
  return { messages, sizes, refusals, reached }
}
const idsOf = (messages: readonly unknown[]) => messages.map((message) => (message as { id: number }).id)

test('messages of every kind arrive in the order in which they were posted', async (t) => {
  await withPorts(t, async ({ inside, outside }) => {
    const COUNT = 600
    const { messages, sizes, reached } = arrivals(inside)
    for (let id = 0; id < COUNT; id++) {
      if (id % 7 === 0) outside.postCall(id, 'large', new Uint8Array(50_000).fill(id))
      else if (id % 5 === 0) outside.post({ id, type: 'CREDIT', count: id })
      else if (id % 11 === 0) outside.post({ id, type: 'RAW', value: new Map() })
      else outside.postCall(id, 'small', { id, bytes: new Uint8Array([id & 0xff]) })
    }
    await reached(() => messages.length === COUNT)
    t.deepEqual(
      idsOf(messages),
      Array.from({ length: COUNT }, (_, id) => id),
    )
    t.deepEqual(messages[1], encodeCall(1, 'small', { id: 1, bytes: new Uint8Array([1]) }).message)
    t.deepEqual(messages[7], encodeCall(7, 'large', new Uint8Array(50_000).fill(7)).message)
    // Known where it was read from bytes.
    t.deepEqual([sizes[1], sizes[7]], [8 + 2 * ('id'.length + 'bytes'.length) + 8 + 1, undefined])
  })
})

test('more than the ring holds waits, and nothing is lost or overtaken', async (t) => {
  await withPorts(
    t,
    async ({ inside, outside }) => {
      const COUNT = 3000
      for (let id = 0; id < COUNT; id++) outside.postCall(id, 'add', new Uint8Array(id % 97 === 0 ? 20_000 : id % 60))
      const { messages, reached } = arrivals(inside)
      await reached(() => messages.length === COUNT)
      t.deepEqual(
        idsOf(messages),
        Array.from({ length: COUNT }, (_, id) => id),
      )
    },
    1024,
  )
})

test('an end that heeds backpressure reads nothing while its own answers are not read', async (t) => {
  await withPorts(
    t,
    async ({ inside, outside }) => {
      let answered = 0
      inside.onMessage((message) => {
        answered++
        inside.postReply((message as { id: number }).id, new Uint8Array(40))
      })
      for (let id = 0; id < 500; id++) outside.postCall(id, 'add', 1)
      for (let turn = 0; turn < 50; turn++) await new Promise((resolve) => setImmediate(resolve))
      t.true(answered < 100, `${answered} answered`)
      const { messages, reached } = arrivals(outside)
      await reached(() => messages.length === 500)
      t.is(answered, 500)
    },
    1024,
  )
})

test('an idle port that sleeps wakes for what comes', async (t) => {
  await withPorts(t, async ({ inside, outside }) => {
    const { messages, reached } = arrivals(inside)
    for (let round = 1; round <= 3; round++) {
      await new Promise((resolve) => setTimeout(resolve, 20))
      outside.postCall(round, 'add', 1)
      await reached(() => messages.length === round)
    }
  })
})

test('a reply out of shared memory is an exact copy, small or large; an argument there is refused', async (t) => {
  await withPorts(t, async ({ inside, outside }) => {
    const { messages, reached } = arrivals(outside)
    for (const [id, size] of [40, 99_999].entries()) {
      const shared = new Uint8Array(new SharedArrayBuffer(size + 8), 8).fill(7)
      t.throws(() => outside.postCall(9, 'add', shared), { code: 'ERR_SHARED_MEMORY' })
      inside.postReply(id, { shared })
      await reached(() => messages.length === id + 1)
      shared.fill(0)
      const { value } = messages[id] as { value: { shared: Uint8Array } }
      t.true(value.shared.buffer instanceof ArrayBuffer)
      t.is(value.shared.buffer.byteLength, size)
      t.true(value.shared.every((byte) => byte === 7))
    }
  })
})

test('a value that cannot cross is refused to its sender, and nothing is sent', async (t) => {
  await withPorts(t, async ({ inside, outside }) => {
    const { messages, reached } = arrivals(inside)
    t.throws(() => outside.postCall(1, 'add', new Map()), { code: 'ERR_VALUE_UNSUPPORTED' })
    t.throws(() => outside.postReply(1, new Uint8Array(11), { sizeBytesMax: 10 }), { code: 'ERR_SIZE_LIMIT' })
    t.throws(() => outside.postReply(1, new Uint8Array(99_999), { sizeBytesMax: 99_998 }), { code: 'ERR_SIZE_LIMIT' })
    outside.postReply(2, new Uint8Array(10), { sizeBytesMax: 10 })
    await reached(() => messages.length === 1)
    t.deepEqual(idsOf(messages), [2])
  })
})

test('a frame that is no message is refused under its id, and the next one is served', async (t) => {
  await withPorts(t, async ({ inside, outside, into }) => {
    const { messages, refusals, reached } = arrivals(inside)
    outside.postCall(7, 'add', 'x')
    // The argument's head says that its text is longer than the frame.
    new Uint8Array(into)[HEADER_WORDS * 4 + 4 + 9] = 0x7a
    outside.postCall(8, 'add', 'y')
    await reached(() => messages.length === 1)
    t.deepEqual(
      refusals.map(([id, { code }]) => [id, code]),
      [[7, 'ERR_MESSAGE_INVALID']],
    )
    t.deepEqual(idsOf(messages), [8])
  })
})

test('a ring that is broken is said once, and the port beside it serves on, both ways', async (t) => {
  await withPorts(t, async ({ inside, outside, beside, into }) => {
    const { messages, refusals, reached } = arrivals(inside)
    Atomics.store(new Int32Array(into), TAIL, -1)
    Atomics.notify(new Int32Array(into), 32)
    await reached(() => refusals.length === 1)
    t.deepEqual(
      refusals.map(([id, { code }]) => [id, code]),
      [[undefined, 'ERR_MESSAGE_INVALID']],
    )
    const call = encodeCall(9, 'add', 1).message
    beside.outside.postMessage(call)
    beside.outside.postMessage(call)
    await reached(() => messages.length === 2)
    t.deepEqual(messages, [call, call])
    const back = arrivals(outside)
    inside.postReply(9, 2)
    await back.reached(() => back.messages.length === 1)
    t.is(refusals.length, 1)
  })
})

test('what comes by the port alone, without a mark, is delivered: all that bare Comlink has', async (t) => {
  await withPorts(t, async ({ inside, outside, beside }) => {
    const { messages, sizes, reached } = arrivals(inside)
    const call = encodeCall('00000000-0000', 'add', { a: 1 }).message
    for (let round = 1; round <= 5; round++) {
      beside.outside.postMessage(call)
      outside.postCall(1, 'add', 1)
      await reached(() => messages.length === 2 * round)
    }
    t.is(messages.filter((message) => (message as { id: number }).id === 1).length, 5)
    t.is(sizes.filter((size) => size === undefined).length, 5)
  })
})

test('a mark whose message never comes holds the ring up, and the port’s next message frees it', async (t) => {
  await withPorts(t, async ({ inside, beside, into }) => {
    const { messages, reached } = arrivals(inside)
    const cells = new Int32Array(into)
    // A frame of no bytes.
    Atomics.store(cells, TAIL, 1)
    for (let turn = 0; turn < 5; turn++) await new Promise((resolve) => setImmediate(resolve))
    t.is(messages.length, 0)
    beside.outside.postMessage('first')
    beside.outside.postMessage('second')
    await reached(() => messages.length === 2)
    t.deepEqual(messages, ['first', 'second'])
  })
})
