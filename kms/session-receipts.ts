import type { Bytes } from '../protocol/bytes.js'
import type { FlowId } from '../protocol/names.js'
import { digestOfItems, type ReceiptFields, type ReceiptKind } from '../protocol/receipts.js'
import type { ItemStatus, SessionRequest } from '../protocol/session.js'
import type { Acknowledged } from '../protocol/statements.js'
import { sha256 } from '../protocol/crypto/primitives.js'
import type { Denials } from './denials.js'
import type { MakeReceipt } from './log.js'
import { fieldsOfState, type ReceiptDraft, type Receipts } from './receipts.js'

/** A request of a session: what it asks for, its bytes, and the flow that the session serves, if it opened one. */
export interface Asked {
  readonly op?: SessionRequest['op'] | undefined
  readonly claimed: Bytes
  readonly flow: FlowId | undefined
}

/** A receipt whose flow's state is known when the state is decided on. */
export interface StateReceipt {
  readonly of: (state: Acknowledged) => MakeReceipt
  /** The receipt, once it is durable. */
  signed(): Bytes
  /** The same; null where what was done leaves none. */
  signedIfAny(): Bytes | null
}

/** The receipts of one attested session: each is bound to its evidence, its image and the request. */
export class SessionReceipts {
  readonly #receipts: Receipts
  readonly #denials: Denials
  readonly #session: Required<Pick<ReceiptFields, 'measurement' | 'evidenceDigest'>>

  constructor(
    receipts: Receipts,
    denials: Denials,
    session: { readonly measurement: Bytes; readonly evidenceDigest: Bytes },
  ) {
    this.#receipts = receipts
    this.#denials = denials
    this.#session = session
  }

  /** For the ledger to write, with the state that it is of. */
  ofState(kind: ReceiptKind, asked: Asked): StateReceipt {
    let draft: ReceiptDraft | undefined
    return {
      of: (state) => {
        draft = this.#receipts.draft(kind, { ...this.#bind(asked), ...fieldsOfState(state) })
        return draft.make
      },
      signed: () => {
        if (draft === undefined) throw new Error('A receipt was taken before its state was known')
        return draft.signed()
      },
      signedIfAny: () => draft?.signed() ?? null,
    }
  }

  /** Of what was opened, durably: nothing of it may leave before. @returns the receipt. */
  ofOpened(
    kind: 'unwrap' | 'stream',
    asked: Asked,
    state: Acknowledged,
    { headers, items }: { readonly headers: readonly Bytes[]; readonly items: readonly ItemStatus[] },
  ): Promise<Bytes> {
    const opened = headers.filter((_, index) => items[index]?.error === null)
    return this.#receipts.record(kind, {
      ...this.#bind(asked),
      ...fieldsOfState(state),
      itemCount: items.length,
      openedCount: opened.length,
      openedDigest: digestOfItems(opened),
      ...(opened.length === 0 && items.length > 0 ? { outcome: 'ERR_ENVELOPE_INVALID' } : {}),
    })
  }

  /** Of a refusal, where it is a denial. Never rejects. */
  deny(error: unknown, asked: Asked): Promise<void> {
    const operation = asked.op === undefined ? {} : { operation: asked.op }
    return this.#denials.deny('enclave', error, { ...this.#bind(asked), ...operation })
  }

  #bind({ claimed, flow }: Asked): ReceiptFields {
    return { ...this.#session, requestDigest: sha256(claimed), ...(flow === undefined ? {} : { flow }) }
  }
}
