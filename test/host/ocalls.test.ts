import test from 'ava'
import { launch, MemoryStore, type EnclaveEvent, type EnclaveHandle, type Store } from '../../host/index.js'
import { encodeCall, parseReply, RUNTIME_OCALLS } from '../../protocol/calls.js'
import { copyBytes } from '../../protocol/bytes.js'
import { KeyriseError } from '../../protocol/errors.js'
import { decodeKmsRequest, encodeKmsError, encodeKmsReply } from '../../protocol/kms.js'
import type { KmsLink } from '../../protocol/ports.js'
import { echoKms, scriptedImage, ScriptedPlatform } from './scripted-platform.js'

interface Served {
  readonly handle: EnclaveHandle<unknown>
  readonly store: Store
  readonly events: EnclaveEvent[]
  readonly post: (message: unknown) => void
  /** Makes an OCALL from the enclave's side: the value, or the code that it was refused with. */
  readonly ocall: (name: string, argument?: unknown) => Promise<unknown>
}

const serve = async (
  ocalls: Readonly<Record<string, (input: never) => unknown>> = {},
  kms: KmsLink = echoKms,
): Promise<Served> => {
  const platform = new ScriptedPlatform()
  const store = new MemoryStore()
  const events: EnclaveEvent[] = []
  const handle = await launch({
    image: scriptedImage({ ocalls: Object.keys(ocalls) }),
    platform,
    store,
    kms,
    flow: 'flow-1',
    ocalls,
    onEvent: (event) => events.push(event),
  })
  const { enclave } = platform
  let count = 0
  const ocall = async (name: string, argument?: unknown): Promise<unknown> => {
    const id = `o${String(count++)}`
    enclave.inside.ocalls.post(encodeCall(id, name, argument).message)
    for (;;) {
      const reply = enclave.replies.map((reply) => parseReply(reply)).find((candidate) => candidate?.id === id)
      if (reply !== undefined) return 'error' in reply ? reply.error.code : reply.claimedValue
      await new Promise((resolve) => setImmediate(resolve))
    }
  }
  return { handle, store, events, ocall, post: (message) => enclave.inside.ocalls.post(message) }
}

test('the store and the KMS are served to the runtime', async (t) => {
  const { handle, store, ocall } = await serve()
  t.is(await ocall(RUNTIME_OCALLS.storeGet, { name: 'flow-1/a' }), null)
  t.is(await ocall(RUNTIME_OCALLS.storePut, { name: 'flow-1/a', bytes: new Uint8Array([1, 2]) }), undefined)
  t.deepEqual(await ocall(RUNTIME_OCALLS.storeGet, { name: 'flow-1/a' }), new Uint8Array([1, 2]))
  const part = (offset: number, sizeBytes: number) => ({ name: 'flow-1/a', offset, sizeBytes })
  t.deepEqual(await ocall(RUNTIME_OCALLS.storeRead, part(1, 9)), new Uint8Array([2]))
  t.is(await ocall(RUNTIME_OCALLS.storeRead, { ...part(0, 1), name: 'flow-1/b' }), null)
  for (const wrong of [part(-1, 1), part(0, -1), part(0.5, 1), part(0, 2 ** 40)])
    t.is(await ocall(RUNTIME_OCALLS.storeRead, wrong), 'ERR_ARGUMENT_INVALID')
  t.deepEqual(await ocall(RUNTIME_OCALLS.storeList, { prefix: 'flow-1/' }), ['flow-1/a'])
  t.is(await ocall(RUNTIME_OCALLS.storePut, { name: 'flow-1/a', bytes: new Uint8Array([3]) }), 'ERR_STORE_CONFLICT')
  t.is(await ocall(RUNTIME_OCALLS.storeDelete, { name: 'flow-1/a' }), undefined)
  t.deepEqual(await store.list(''), [])
  t.deepEqual(await ocall(RUNTIME_OCALLS.kmsExchange, { frame: new Uint8Array([7]) }), new Uint8Array([7]))
  await handle.close()
})

test('the KMS gets the frame of a commit once the object is in the store, and not where it is not', async (t) => {
  const frames: number[] = []
  let stored = false
  const kms: KmsLink = {
    ...echoKms,
    exchange: async (frame) => {
      stored = (await served.store.get('flow-1/a')) !== undefined
      frames.push(frame[0] ?? 0)
      return frame[0] === 9 ? Promise.reject(new Error('gone')) : frame
    },
  }
  const served = await serve({}, kms)
  const { handle, store, ocall } = served
  const commit = (name: string, byte: number, frame: number): Promise<unknown> =>
    ocall(RUNTIME_OCALLS.storeCommit, { name, bytes: new Uint8Array([byte]), frame: new Uint8Array([frame]) })
  t.deepEqual(await commit('flow-1/a', 1, 7), new Uint8Array([7]))
  t.true(stored)
  t.is(await commit('flow-1/a', 2, 8), 'ERR_STORE_CONFLICT')
  t.is(await commit('flow-2/a', 1, 8), 'ERR_NAME_INVALID')
  t.is(await ocall(RUNTIME_OCALLS.storeCommit, { name: 'flow-1/b', bytes: [1], frame: [1] }), 'ERR_ARGUMENT_INVALID')
  t.deepEqual(frames, [7])
  t.is(await commit('flow-1/b', 1, 9), 'ERR_KMS_UNREACHABLE')
  t.deepEqual(await store.list(''), ['flow-1/a', 'flow-1/b'])
  await handle.close()
})

test('a commit’s frame goes to the KMS ahead where it can, and counts once the object is in the store', async (t) => {
  const known: string[] = []
  const kms: KmsLink = {
    ...echoKms,
    exchange: () => Promise.reject(new Error('not asked')),
    exchangeAfter: async (durable, frame) => {
      known.push('asked')
      await durable
      known.push((await served.store.get('flow-1/a')) === undefined ? 'not stored' : 'stored')
      return frame
    },
  }
  const served = await serve({}, kms)
  const { handle, ocall } = served
  const commit = (byte: number) =>
    ocall(RUNTIME_OCALLS.storeCommit, {
      name: 'flow-1/a',
      bytes: new Uint8Array([byte]),
      frame: new Uint8Array([byte]),
    })
  t.deepEqual(await commit(1), new Uint8Array([1]))
  t.deepEqual(known, ['asked', 'stored'])
  t.is(await commit(2), 'ERR_STORE_CONFLICT')
  t.is(known.filter((what) => what === 'stored').length, 1)
  await handle.close()
})

test('an enclave reaches its own flow’s part of the store and no other', async (t) => {
  const { handle, store, ocall } = await serve()
  await store.put('flow-2/a', new Uint8Array([1]))
  await store.put('flow-11/a', new Uint8Array([1]))
  for (const name of ['flow-2/a', 'flow-11/a', 'flow-1', 'flow-1/../flow-2/a', '']) {
    t.is(await ocall(RUNTIME_OCALLS.storeGet, { name }), 'ERR_NAME_INVALID', name)
    t.is(await ocall(RUNTIME_OCALLS.storeRead, { name, offset: 0, sizeBytes: 1 }), 'ERR_NAME_INVALID', name)
    t.is(await ocall(RUNTIME_OCALLS.storePut, { name, bytes: new Uint8Array([2]) }), 'ERR_NAME_INVALID', name)
    t.is(await ocall(RUNTIME_OCALLS.storeDelete, { name }), 'ERR_NAME_INVALID', name)
  }
  for (const prefix of ['', 'flow-', 'flow-1', 'flow-2/'])
    t.is(await ocall(RUNTIME_OCALLS.storeList, { prefix }), 'ERR_NAME_INVALID', prefix)
  t.deepEqual(await store.list(''), ['flow-11/a', 'flow-2/a'])
  await handle.close()
})

const STREAM = new Uint8Array(16).fill(9)
const PAYLOAD = new Uint8Array(100).map((_, index) => index)

test('a segment goes from the store to the KMS, and the answer to the runtime', async (t) => {
  const answer = copyBytes(PAYLOAD.subarray(50))
  const asked: unknown[] = []
  const { handle, store, ocall } = await serve(
    {},
    {
      ...echoKms,
      exchange: (frame) => {
        asked.push(decodeKmsRequest(frame))
        return Promise.resolve(encodeKmsReply({ sealed: answer }))
      },
    },
  )
  await store.put('flow-1/a.payload', PAYLOAD)
  const request = { name: 'flow-1/a.payload', offset: 16, sizeBytes: 40, stream: STREAM, index: 3 }
  t.deepEqual(await ocall(RUNTIME_OCALLS.bulkSegment, request), answer)
  t.deepEqual(asked, [{ op: 'segment', stream: STREAM, index: 3, sealed: copyBytes(PAYLOAD.subarray(16, 56)) }])
  // What the store does not have, or not all of it, the KMS is not asked about.
  t.is(await ocall(RUNTIME_OCALLS.bulkSegment, { ...request, name: 'flow-1/b.payload' }), null)
  t.is(await ocall(RUNTIME_OCALLS.bulkSegment, { ...request, sizeBytes: 90 }), 'ERR_ENVELOPE_INVALID')
  t.is(asked.length, 1)
  await handle.close()
})

test('a segment comes from the flow’s own part of the store and from no other, and its request is checked', async (t) => {
  const { handle, store, ocall } = await serve()
  await store.put('flow-2/a.payload', PAYLOAD)
  const request = { name: 'flow-1/a.payload', offset: 16, sizeBytes: 40, stream: STREAM, index: 3 }
  for (const name of ['flow-2/a.payload', 'flow-1', 'flow-1/../flow-2/a.payload', ''])
    t.is(await ocall(RUNTIME_OCALLS.bulkSegment, { ...request, name }), 'ERR_NAME_INVALID', name)
  for (const wrong of [
    { offset: -1 },
    { offset: 1.5 },
    { sizeBytes: 2 * 1024 * 1024 },
    { stream: 'x' },
    { stream: new Uint8Array(15) },
    { index: null },
    { more: 1 },
  ])
    t.is(await ocall(RUNTIME_OCALLS.bulkSegment, { ...request, ...wrong }), 'ERR_ARGUMENT_INVALID')
  await handle.close()
})

test('what the KMS says of a segment reaches the runtime as a code', async (t) => {
  let said: Uint8Array = encodeKmsError('ERR_SESSION_INVALID')
  const { handle, store, ocall } = await serve({}, { ...echoKms, exchange: () => Promise.resolve(said) })
  await store.put('flow-1/a.payload', PAYLOAD)
  const request = { name: 'flow-1/a.payload', offset: 16, sizeBytes: 40, stream: STREAM, index: 3 }
  t.is(await ocall(RUNTIME_OCALLS.bulkSegment, request), 'ERR_SESSION_INVALID')
  said = new Uint8Array(3)
  t.is(await ocall(RUNTIME_OCALLS.bulkSegment, request), 'ERR_KMS_FAILED')
  await handle.close()
})

test('the host goes on answering while the KMS is busy with segments', async (t) => {
  let release = (): void => undefined
  const released = new Promise<Uint8Array>((resolve) => {
    release = () => resolve(encodeKmsError('ERR_CALLS_LIMIT'))
  })
  const { handle, store, ocall } = await serve({}, { ...echoKms, exchange: () => released })
  await store.put('flow-1/a.payload', PAYLOAD)
  const request = { name: 'flow-1/a.payload', offset: 16, sizeBytes: 40, stream: STREAM }
  const segments = Array.from({ length: 8 }, (_, index) => ocall(RUNTIME_OCALLS.bulkSegment, { ...request, index }))
  t.deepEqual(await ocall(RUNTIME_OCALLS.storeGet, { name: 'flow-1/a.payload' }), PAYLOAD)
  release()
  t.deepEqual(new Set(await Promise.all(segments)), new Set(['ERR_CALLS_LIMIT']))
  await handle.close()
})

test('malformed arguments are refused', async (t) => {
  const { handle, ocall } = await serve()
  for (const argument of [
    undefined,
    null,
    7,
    [],
    {},
    { name: 7 },
    { name: 'flow-1/a', bytes: 'x' },
    { name: 'flow-1/a', extra: 1 },
  ]) {
    t.is(await ocall(RUNTIME_OCALLS.storePut, argument), 'ERR_ARGUMENT_INVALID')
  }
  t.is(await ocall(RUNTIME_OCALLS.kmsExchange, { frame: [1] }), 'ERR_ARGUMENT_INVALID')
  await handle.close()
})

test('what is no call is answered by nobody, or refused, and harms nothing', async (t) => {
  const { handle, ocall, post } = await serve()
  for (const garbage of [
    null,
    7,
    {},
    { id: 'x' },
    { id: 'x', type: 'SET', path: ['a'], value: 1 },
    { id: 'x', type: 'APPLY', path: ['a', 'b'], argumentList: [] },
  ]) {
    post(garbage)
  }
  t.is(await ocall(RUNTIME_OCALLS.storeGet, { name: 'flow-1/a' }), null)
  await handle.close()
})

test('the author’s OCALLs are served, synchronous or not', async (t) => {
  const { handle, ocall } = await serve({
    add: ({ a, b }: { a: number; b: number }) => a + b,
    later: async (text: string) => {
      await Promise.resolve()
      return `${text}!`
    },
  })
  t.is(await ocall('add', { a: 1, b: 2 }), 3)
  t.is(await ocall('later', 'x'), 'x!')
  t.is(await ocall('unknown'), 'ERR_OCALL_UNKNOWN')
  t.is(await ocall('constructor'), 'ERR_OCALL_UNKNOWN')
  await handle.close()
})

test('an OCALL that fails tells the enclave a code, and the host the cause', async (t) => {
  const cause = new Error('database password is wrong')
  const { handle, ocall, events } = await serve({
    broken: () => {
      throw cause
    },
    full: () => {
      throw new KeyriseError('ERR_STORE_FULL')
    },
    unsendable: () => () => 1,
  })
  t.is(await ocall('broken'), 'ERR_OCALL_FAILED')
  t.is(await ocall('full'), 'ERR_STORE_FULL')
  t.is(await ocall('unsendable'), 'ERR_VALUE_UNSUPPORTED')
  const failed = events.flatMap((event) => (event.type === 'ocall-failed' ? [event] : []))
  t.deepEqual(
    failed.map(({ name }) => name),
    ['broken', 'full', 'unsendable'],
  )
  t.is(failed[0]?.error, cause)
  await handle.close()
})

test('an author cannot replace the runtime’s OCALLs', async (t) => {
  const { handle, ocall } = await serve({ [RUNTIME_OCALLS.storeGet]: () => new Uint8Array([66]) })
  t.is(await ocall(RUNTIME_OCALLS.storeGet, { name: 'flow-1/a' }), null)
  await handle.close()
})

test('an OCALL that the image declares and the host lacks is said at launch', async (t) => {
  const platform = new ScriptedPlatform()
  const options = {
    image: scriptedImage({ ocalls: ['log'] }),
    platform,
    store: new MemoryStore(),
    kms: echoKms,
    flow: 'flow-1',
  }
  await t.throwsAsync(launch(options), { code: 'ERR_OCALL_UNKNOWN', message: /log/ })
  t.is(platform.launched.length, 0)
})
