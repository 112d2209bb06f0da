import { randomBytes } from 'node:crypto'
import { checkProof, type Verifier } from './password.js'
import { deliveryStatement, readingStatement } from './statements.js'

/** The hospital’s archive, on its host: it keeps sealed bytes and serves whoever proves the enclave’s password. */
export class Archive {
  readonly #verifier: Verifier
  readonly #records: Uint8Array
  readonly #challenges = new Set<string>()
  #delivered: Uint8Array | undefined

  constructor(verifier: Verifier, sealedRecords: Uint8Array) {
    this.#verifier = verifier
    this.#records = sealedRecords
  }

  /** What the enclave delivered, sealed. */
  get delivered(): Uint8Array | undefined {
    return this.#delivered
  }

  challenge(): { nonce: Uint8Array } {
    const nonce = new Uint8Array(randomBytes(32))
    this.#challenges.add(Buffer.from(nonce).toString('hex'))
    return { nonce }
  }

  read({ nonce, proof }: { nonce: Uint8Array; proof: Uint8Array }): { sealed: Uint8Array } {
    this.#check(nonce, readingStatement(nonce), proof)
    return { sealed: this.#records }
  }

  deliver({
    nonce,
    proof,
    sealed,
  }: {
    nonce: Uint8Array
    proof: Uint8Array
    sealed: Uint8Array
  }): Record<string, never> {
    this.#check(nonce, deliveryStatement(nonce, sealed), proof)
    this.#delivered = sealed
    return {}
  }

  #check(nonce: Uint8Array, request: Uint8Array, proof: Uint8Array): void {
    const known = this.#challenges.delete(Buffer.from(nonce).toString('hex'))
    if (!known || !checkProof(this.#verifier, request, proof)) throw new Error('the archive refuses the login')
  }
}
