import test from 'ava'
import { RecentReceipts } from '../../kms/recent-receipts.js'
import { allocate, type Bytes } from '../../protocol/bytes.js'
import { encodeReceiptBody, firstLink, joinReceipt, linkAfter } from '../../protocol/receipts.js'
import { digestOf } from './attested-client.js'

const IDENTITY = digestOf(9)

const makeReceipts = (count: number): Bytes[] => {
  const receipts: Bytes[] = []
  let link = firstLink(IDENTITY)
  for (let index = 0; index < count; index++) {
    const body = encodeReceiptBody({ ...link, kms: IDENTITY, timeMs: index, kind: 'unlock' })
    const receipt = joinReceipt(body, allocate(64))
    receipts.push(receipt)
    link = linkAfter(receipt, link)
  }
  return receipts
}

const sequences = (recent: RecentReceipts): number[] => recent.list().map(({ sequence }) => sequence)

test('of the receipts of a log and those that follow, the newest are kept, oldest first', (t) => {
  const receipts = makeReceipts(8)
  const [first = 0] = sequences(new RecentReceipts(receipts.slice(0, 1), 3))
  const recent = new RecentReceipts(receipts.slice(0, 5), 3)
  t.deepEqual(
    sequences(recent).map((sequence) => sequence - first),
    [2, 3, 4],
  )
  for (const receipt of receipts.slice(5)) recent.add(receipt)
  t.deepEqual(
    sequences(recent).map((sequence) => sequence - first),
    [5, 6, 7],
  )
})

test('a receipt is read when somebody looks, and then once', (t) => {
  const recent = new RecentReceipts([], 3)
  recent.add(allocate(80))
  t.throws(() => recent.list(), { instanceOf: Error })
  const other = new RecentReceipts(makeReceipts(2), 3)
  const [looked, again] = [other.list(), other.list()]
  t.is(looked[0], again[0])
  t.is(looked[1], again[1])
})
