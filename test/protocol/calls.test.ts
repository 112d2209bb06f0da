import test from 'ava'
import fc from 'fast-check'
import {
  encodeCall,
  encodeLifecycle,
  encodeRefusal,
  encodeReply,
  isCallName,
  parseCall,
  parseLifecycle,
  parseReply,
} from '../../protocol/calls.js'
import { ERROR_CODES, isErrorCode, KeyriseError, outsideCode } from '../../protocol/errors.js'

test('a call and its reply are read as they were written', (t) => {
  const { message, transfer } = encodeCall('7', 'train', { bytes: new Uint8Array([1]) })
  t.deepEqual(parseCall(message), { id: '7', name: 'train', claimedArgument: { bytes: new Uint8Array([1]) } })
  t.is(transfer.length, 0)
  t.deepEqual(parseCall(encodeCall('7', 'ping', undefined).message), {
    id: '7',
    name: 'ping',
    claimedArgument: undefined,
  })
  t.deepEqual(parseReply(encodeReply('7', [1]).message), { id: '7', claimedValue: [1] })
  t.deepEqual(parseReply(encodeReply('7', undefined).message), { id: '7', claimedValue: undefined })
})

test('every code crosses as itself, or as what the outside may know of it', (t) => {
  for (const code of ERROR_CODES) {
    const reply = parseReply(
      encodeRefusal('1', new KeyriseError(code, { detail: 'secret text', cause: 'secret text' })).message,
    )
    t.true(reply !== undefined && 'error' in reply && reply.error.code === outsideCode(code), code)
    t.false(
      JSON.stringify(encodeRefusal('1', new KeyriseError(code, { detail: 'secret text' }))).includes('secret text'),
      code,
    )
  }
})

test('a declared refusal crosses with its reason', (t) => {
  const reply = parseReply(
    encodeRefusal('1', new KeyriseError('ERR_APPLICATION', { reason: 'closed', detail: 'The office is closed' }))
      .message,
  )
  t.like(reply, { error: { code: 'ERR_APPLICATION', reason: 'closed' } })
})

test('what is not an error of ours crosses as the code given for that', (t) => {
  for (const thrown of [new Error('secret text'), 'secret text', undefined, { code: 'ERR_ROLLBACK' }]) {
    t.like(parseReply(encodeRefusal('1', thrown, 'ERR_OCALL_FAILED').message), { error: { code: 'ERR_OCALL_FAILED' } })
  }
})

test('a reply of a code that is not ours is a bad message', (t) => {
  for (const code of ['ERR_OTHER', 'toString', '__proto__', 1, null]) {
    t.like(parseReply({ id: '1', type: 'HANDLER', name: 'throw', value: { isError: true, value: { code } } }), {
      error: { code: 'ERR_MESSAGE_INVALID' },
    })
  }
})

test('lifecycle messages are read as they were written, and nothing else is one', (t) => {
  t.deepEqual(parseLifecycle(encodeLifecycle({ type: 'READY' }).message), { type: 'READY' })
  t.deepEqual(parseLifecycle(encodeLifecycle({ type: 'FAILED', code: 'ERR_ROLLBACK' }).message), {
    type: 'FAILED',
    code: 'ERR_ROLLBACK',
  })
  t.deepEqual(parseLifecycle({ type: 'FAILED', code: 'toString' }), { type: 'FAILED', code: 'ERR_LAUNCH_FAILED' })
  for (const claimed of [null, 'READY', {}, { type: 'ready' }, ['READY'], Object.create({ type: 'READY' })])
    t.is(parseLifecycle(claimed), undefined)
})

test('an id is a number of 32 bits, or text of at most 64 characters', (t) => {
  for (const id of [0, 1, 2 ** 32 - 1, 'x', '0', 'x'.repeat(64)])
    t.is(parseCall(encodeCall(id, 'add', 1).message).id, id)
  for (const id of [-0, -1, 0.5, 2 ** 32, NaN, Infinity, '', 'x'.repeat(65), 1n, true, null, undefined, {}])
    t.throws(() => parseCall({ ...(encodeCall(0, 'add', 1).message as object), id }), { code: 'ERR_MESSAGE_INVALID' })
})

test('an author’s names are letters, digits, - and _, and never the runtime’s', (t) => {
  for (const name of ['train', 'a', 'A-b_9', 'x'.repeat(64)]) t.true(isCallName(name), name)
  for (const name of [
    '',
    '9a',
    '_a',
    'a b',
    'a.b',
    'keyrise:store-put',
    '__proto__',
    'x'.repeat(65),
    'a\n',
    'ä',
    7,
    undefined,
  ])
    t.false(isCallName(name), String(name))
})

test('property: nothing makes the readers throw anything but ERR_MESSAGE_INVALID, run code, or accept what was not written', (t) => {
  const part = fc.constantFrom(
    'id',
    'type',
    'path',
    'argumentList',
    'value',
    'name',
    'APPLY',
    'RAW',
    'HANDLER',
    'throw',
    'isError',
    'code',
    '1',
    '__proto__',
  )
  const claimed = fc.oneof(
    fc.anything({ key: part, withNullPrototype: true, withMap: true, withSparseArray: true, withTypedArray: true }),
    fc.record(
      {
        id: fc.oneof(part, fc.anything()),
        type: part,
        path: fc.oneof(fc.array(part), fc.anything()),
        argumentList: fc.anything({ key: part }),
        value: fc.anything({ key: part }),
        name: part,
      },
      { requiredKeys: [] },
    ),
  )
  fc.assert(
    fc.property(claimed, (message) => {
      try {
        const { id, name } = parseCall(message)
        t.true(typeof id === 'number' ? id >= 0 && id < 2 ** 32 : id.length > 0 && id.length <= 64)
        t.true(name.length > 0 && name.length <= 64)
      } catch (error) {
        t.true(error instanceof KeyriseError && error.code === 'ERR_MESSAGE_INVALID')
      }
      const reply = parseReply(message)
      if (reply !== undefined && 'error' in reply) t.true(isErrorCode(reply.error.code))
      parseLifecycle(message)
    }),
    { numRuns: 5000 },
  )
})
