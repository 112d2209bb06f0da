import type { Bytes } from '../protocol/bytes.js'
import { decodeReceiptBody, splitReceipt, type Receipt } from '../protocol/receipts.js'

/** The newest receipts of a log, for operators to look at: kept as they were signed, and read when somebody looks. */
export class RecentReceipts {
  readonly #countMax: number
  readonly #signed: Bytes[]
  readonly #read = new WeakMap<Bytes, Receipt>()

  /** @param signed - oldest first; as many of the newest are kept as `countMax` says. */
  constructor(signed: readonly Bytes[], countMax: number) {
    this.#countMax = countMax
    this.#signed = signed.slice(-countMax)
  }

  add(signed: Bytes): void {
    this.#signed.push(signed)
    if (this.#signed.length > this.#countMax) this.#signed.shift()
  }

  /** Oldest first. @throws {KeyriseError} where one is none: whoever wrote it has not looked at it. */
  list(): Receipt[] {
    return this.#signed.map((signed) => {
      const known = this.#read.get(signed)
      if (known !== undefined) return known
      const receipt = decodeReceiptBody(splitReceipt(signed).body)
      this.#read.set(signed, receipt)
      return receipt
    })
  }
}
