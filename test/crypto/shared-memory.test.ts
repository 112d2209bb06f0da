import test from 'ava'
import { copyInto, isShared } from '../../protocol/crypto/shared-memory.js'

const shared = (size: number): Uint8Array<SharedArrayBuffer> => new Uint8Array(new SharedArrayBuffer(size))
const counted = (size: number): Uint8Array => Uint8Array.from({ length: size }, (_, index) => index + 1)

test('bytes go to shared memory and come back, and what lies around them stays', (t) => {
  const memory = shared(8)
  copyInto(memory.subarray(2), counted(3))
  t.deepEqual([...memory], [0, 0, 1, 2, 3, 0, 0, 0])
  const back = new Uint8Array(10)
  copyInto(back.subarray(1), memory.subarray(2, 5))
  t.deepEqual([...back], [0, 1, 2, 3, 0, 0, 0, 0, 0, 0])
  copyInto(memory, new Uint8Array(0))
  t.deepEqual([...memory], [0, 0, 1, 2, 3, 0, 0, 0])
})

test('more bytes than there is room for are refused, and none is written', (t) => {
  const memory = shared(4)
  t.throws(() => copyInto(memory.subarray(2), counted(3)), { instanceOf: RangeError })
  t.deepEqual([...memory], [0, 0, 0, 0])
})

test('shared memory is told from memory of one’s own', (t) => {
  t.true(isShared(shared(1)))
  t.false(isShared(new Uint8Array(1)))
})
