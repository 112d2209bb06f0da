import { equalPublicBytes, toHex, type Bytes } from '../protocol/bytes.js'
import {
  decodeReceiptBody,
  firstLink,
  linkAfter,
  receiptDigest,
  splitReceipt,
  type Receipt,
  type ReceiptLink,
} from '../protocol/receipts.js'
import { openReceipt } from '../protocol/crypto/receipts.js'
import { NotReceipts } from './receipts-file.js'

/** What is wrong with receipts. */
export interface ReceiptFinding {
  readonly problem: 'damaged' | 'changed' | 'foreign' | 'missing' | 'reordered' | 'repeated' | 'forked' | 'truncated'
  /** The receipt that it is about, or the first of them: its number as it claims, or the one that should be there. */
  readonly sequence: number
  readonly detail: string
}

/** A receipt that is known from elsewhere: the file has to hold it. */
export interface KnownReceipt {
  readonly sequence: number
  /** `receiptDigest`, 32 bytes. */
  readonly digest: Uint8Array
}

export interface CheckedReceipts {
  readonly findings: readonly ReceiptFinding[]
  /** How many there are, sound or not. */
  readonly count: number
  /** The last that is sound and in its place: what a later check can be told to find again. Undefined where there is none. */
  readonly head: KnownReceipt | undefined
}

/** Receipts that are not there, `from` to `to`. */
interface Gap {
  readonly from: number
  readonly to: number
}

/**
 * Checks receipts from their first on, one after the other, with no more than a public key: signatures, numbers, links.
 * @param identity - the KMS’s, Ed25519, 32 bytes. @param known - receipts that have to be among them.
 */
export const checkReceipts = (
  identity: Uint8Array,
  receipts: Iterable<Uint8Array | NotReceipts>,
  known: readonly KnownReceipt[] = [],
): CheckedReceipts => {
  const check = new Check(identity, known)
  for (const receipt of receipts) check.add(receipt)
  return check.finish()
}

/** Of a file in which more is wrong, no more is told. */
const WRONG_COUNT_MAX = 1000

class Check {
  readonly #identity: Uint8Array
  readonly #known: readonly KnownReceipt[]
  readonly #met = new Set<KnownReceipt>()
  readonly #findings: ReceiptFinding[] = []
  #gaps: Gap[] = []
  #isCut = false
  #count = 0
  /** The place of the receipt after the newest; its link is not known behind one that was changed. */
  #next: { readonly sequence: number; readonly previous: Bytes | undefined }
  #head: KnownReceipt | undefined

  constructor(identity: Uint8Array, known: readonly KnownReceipt[]) {
    this.#identity = identity
    this.#known = known
    this.#next = firstLink(identity)
  }

  add(claimed: Uint8Array | NotReceipts): void {
    if (this.#isCut) return
    if (this.#findings.length + this.#gaps.length >= WRONG_COUNT_MAX) {
      this.#isCut = true
      this.#find('damaged', this.#next.sequence, 'so much is wrong that from here on nothing was checked')
      return
    }
    if (claimed instanceof NotReceipts) {
      this.#find('damaged', this.#next.sequence, `from byte ${claimed.offset} on the file holds no receipts`)
      return
    }
    this.#count++
    const receipt = openReceipt(this.#identity, claimed)
    if (receipt === undefined) this.#addUnsigned(claimed)
    else this.#addSigned(receipt, claimed)
  }

  finish(): CheckedReceipts {
    for (const { from, to } of this.#gaps)
      this.#find('missing', from, from === to ? 'it is not there' : `up to ${to}: they are not there`)
    const last = this.#next.sequence - 1
    for (const known of this.#known) {
      if (this.#met.has(known)) continue
      const { sequence } = known
      if (sequence > last) this.#find('truncated', sequence, `it is known, and the file ends with ${last}`)
      else this.#find('forked', sequence, 'another one is known to have this number')
    }
    return { findings: this.#findings, count: this.#count, head: this.#head }
  }

  #addSigned(receipt: Receipt, claimed: Uint8Array): void {
    const { sequence } = receipt
    const digest = receiptDigest(claimed)
    for (const known of this.#known)
      if (known.sequence === sequence && equalPublicBytes(known.digest, digest)) this.#met.add(known)
    if (sequence < this.#next.sequence) {
      this.#addLate(sequence)
      return
    }
    const { previous } = this.#next
    if (sequence > this.#next.sequence) this.#gaps.push({ from: this.#next.sequence, to: sequence - 1 })
    else if (previous !== undefined && !equalPublicBytes(receipt.previous, previous))
      this.#find('forked', sequence, `it does not follow the receipt before it, but ${toHex(receipt.previous)}`)
    this.#next = linkAfter(claimed, { sequence })
    this.#head = { sequence, digest }
  }

  /** A number that was passed: it stands in another place than its own, or is there a second time. */
  #addLate(sequence: number): void {
    const gap = this.#gaps.find(({ from, to }) => from <= sequence && sequence <= to)
    if (gap === undefined) {
      this.#find('repeated', sequence, `it stands behind ${this.#next.sequence - 1} once more`)
      return
    }
    this.#find('reordered', sequence, `it stands behind ${this.#next.sequence - 1}`)
    this.#gaps = this.#gaps.flatMap((one) =>
      one === gap
        ? [
            { from: gap.from, to: sequence - 1 },
            { from: sequence + 1, to: gap.to },
          ].filter(({ from, to }) => from <= to)
        : one,
    )
  }

  #addUnsigned(claimed: Uint8Array): void {
    const receipt = readUnsigned(claimed)
    if (receipt !== undefined && !equalPublicBytes(receipt.kms, this.#identity)) {
      const isSound = openReceipt(receipt.kms, claimed) !== undefined
      if (isSound) this.#find('foreign', receipt.sequence, `it is of another KMS: ${toHex(receipt.kms)}`)
      else this.#addChanged(receipt)
      return
    }
    this.#addChanged(receipt)
  }

  /** It holds the place that it is in, so that it is not missing, too; what followed it is not known. */
  #addChanged(receipt: ReceiptLink | undefined): void {
    const { sequence } = this.#next
    if (receipt === undefined) this.#find('damaged', sequence, 'what is in its place is no receipt')
    else this.#find('changed', receipt.sequence, 'this KMS did not sign it so')
    this.#next = { sequence: sequence + 1, previous: undefined }
  }

  #find(problem: ReceiptFinding['problem'], sequence: number, detail: string): void {
    this.#findings.push({ problem, sequence, detail })
  }
}

const readUnsigned = (claimed: Uint8Array): Receipt | undefined => {
  try {
    return decodeReceiptBody(splitReceipt(claimed).body)
  } catch {
    return undefined
  }
}
