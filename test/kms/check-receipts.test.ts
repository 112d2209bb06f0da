import test from 'ava'
import fc from 'fast-check'
import { SimulatedClock } from '../../faults/index.js'
import { checkReceipts, type ReceiptFinding } from '../../kms/check-receipts.js'
import { encodeReceiptsFile, NotReceipts, readReceiptsFile } from '../../kms/receipts-file.js'
import { Receipts } from '../../kms/receipts.js'
import { concatBytes, copyBytes, type Bytes } from '../../protocol/bytes.js'
import { ed25519Signer } from '../../protocol/crypto/keys.js'
import { nodeRandom } from '../../protocol/crypto/primitives.js'
import { Secret } from '../../protocol/crypto/secret.js'
import { firstLink, linkAfter, receiptDigest, RECEIPT_KINDS, type ReceiptLink } from '../../protocol/receipts.js'
import { digestOf } from './attested-client.js'

const signer = ed25519Signer(Secret.random(32, nodeRandom))
const identity = signer.publicKey

/** Receipts of a KMS, from `link` on. */
const chain = (count: number, by = signer, link: ReceiptLink = firstLink(by.publicKey)): Bytes[] => {
  const clock = new SimulatedClock()
  const kms = { identity: by.publicKey, sign: by.sign }
  const receipts = new Receipts({ ledger: { record: () => Promise.resolve() }, signer: kms, clock })
  let next = link
  return Array.from({ length: count }, (_, index) => {
    const kind = RECEIPT_KINDS[index % RECEIPT_KINDS.length] ?? 'open'
    const signed = receipts.draft(kind, { requestDigest: digestOf(index), reason: `no. ${index}` }).make(next)
    next = linkAfter(signed, next)
    return signed
  })
}
const ALL = chain(8)
const at = (index: number): Bytes => ALL[index] ?? new Uint8Array(0)
const without = (...indexes: number[]) => ALL.filter((_, index) => !indexes.includes(index))
const brief = (findings: readonly ReceiptFinding[]) => findings.map(({ problem, sequence }) => [problem, sequence])
const findingsOf = (receipts: readonly Uint8Array[], known: Parameters<typeof checkReceipts>[2] = []) =>
  brief(checkReceipts(identity, receipts, known).findings)
const flip = (receipt: Bytes, place: number): Bytes => {
  const changed = copyBytes(receipt)
  changed[place] = (changed[place] ?? 0) ^ 1
  return changed
}

test('whole receipts have no findings, and their head is the last', (t) => {
  const head = { sequence: 8, digest: receiptDigest(at(7)) }
  t.deepEqual(checkReceipts(identity, ALL), { findings: [], count: 8, head })
  t.deepEqual(checkReceipts(identity, []), { findings: [], count: 0, head: undefined })
  t.deepEqual(findingsOf(ALL, [head, { sequence: 3, digest: receiptDigest(at(2)) }]), [])
})

for (const [what, receipts, expected] of [
  ['one is missing', without(3), [['missing', 4]]],
  ['the first are missing', without(0, 1), [['missing', 1]]],
  [
    'some are missing in two places',
    without(1, 4, 5),
    [
      ['missing', 2],
      ['missing', 5],
    ],
  ],
  ['two stand in each other’s place', [at(0), at(2), at(1), ...ALL.slice(3)], [['reordered', 2]]],
  ['one was moved to the end', [...without(2), at(2)], [['reordered', 3]]],
  ['one is there twice', [...ALL.slice(0, 4), at(1), ...ALL.slice(4)], [['repeated', 2]]],
  ['one was changed', ALL.with(2, flip(at(2), at(2).length - 65)), [['changed', 3]]],
  ['the signature of one was changed', ALL.with(2, flip(at(2), at(2).length - 1)), [['changed', 3]]],
  ['one was replaced by what is no receipt', ALL.with(2, digestOf(1)), [['damaged', 3]]],
  [
    'another KMS’s was put in',
    [at(0), ...chain(1, ed25519Signer(Secret.random(32, nodeRandom))), ...ALL.slice(1)],
    [['foreign', 1]],
  ],
  [
    'another history of the same KMS goes on',
    [...ALL.slice(0, 4), ...chain(2, signer, { sequence: 5, previous: digestOf(9) })],
    [['forked', 5]],
  ],
  ['a first one of another chain', chain(1, signer, { sequence: 1, previous: digestOf(9) }), [['forked', 1]]],
] as const)
  test(`found: ${what}`, (t) => {
    t.deepEqual(findingsOf(receipts), expected as readonly unknown[] as [])
  })

test('found against a receipt that is known: the end cut off, and another in its place', (t) => {
  const known = { sequence: 6, digest: receiptDigest(at(5)) }
  t.deepEqual(findingsOf(ALL.slice(0, 5), [known]), [['truncated', 6]])
  t.deepEqual(findingsOf([], [known]), [['truncated', 6]])
  t.deepEqual(findingsOf(ALL, [{ ...known, digest: digestOf(1) }]), [['forked', 6]])
})

test('a change of any byte of any receipt is found', (t) => {
  const search = fc.check(
    fc.property(fc.nat(7), fc.nat(), fc.integer({ min: 1, max: 255 }), (index, place, bits) => {
      const changed = copyBytes(at(index))
      const byte = place % changed.length
      changed[byte] = (changed[byte] ?? 0) ^ bits
      return findingsOf(ALL.with(index, changed)).length > 0
    }),
    { numRuns: 100 },
  )
  t.false(search.failed, fc.defaultReportMessage(search))
})

test('any other order, selection or doubling of them is found, but for a shorter beginning', (t) => {
  const search = fc.check(
    fc.property(fc.array(fc.nat(7), { maxLength: 10 }), (indexes) => {
      const isBeginning = indexes.every((index, place) => index === place)
      return isBeginning === (findingsOf(indexes.map(at)).length === 0)
    }),
    { numRuns: 300 },
  )
  t.false(search.failed, fc.defaultReportMessage(search))
})

test('a file of them is read back as it was written; one that was cut off or goes on with something else says where', (t) => {
  const file = concatBytes(...encodeReceiptsFile(ALL))
  t.deepEqual(
    [...readReceiptsFile(file)].map((one) => (one instanceof NotReceipts ? one : copyBytes(one))),
    ALL,
  )
  const cut = [...readReceiptsFile(file.subarray(0, -1))]
  t.deepEqual([cut.length, cut.at(-1)], [8, new NotReceipts(file.length - at(7).length - 3)])
  for (const more of [new Uint8Array([0]), new Uint8Array([0x59, 0xff, 0xff]), new Uint8Array([0x5a, 0, 0, 0, 1, 0])])
    t.deepEqual([...readReceiptsFile(concatBytes(file, more))].at(-1), new NotReceipts(file.length))
  t.deepEqual(brief(checkReceipts(identity, readReceiptsFile(concatBytes(file, digestOf(1)))).findings), [
    ['damaged', 9],
  ])
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
      const { findings, count } = checkReceipts(identity, readReceiptsFile(bytes))
      return findings.length > 0 || count === 0
    }),
  )
})

test('a file in which nothing is right is not told of for ever', (t) => {
  const { findings } = checkReceipts(identity, Array<Bytes>(5000).fill(digestOf(1)))
  t.is(findings.length, 1001)
})
