import { KeyriseError, type ErrorCode } from '../protocol/errors.js'
import type { KmsLink, Store } from '../protocol/ports.js'
import { aroundKms, aroundStore, type Around, type WorldCall } from './around.js'

/** A moment at which something can go wrong: just before a call takes effect, or just after, ahead of its answer. */
export interface Moment {
  readonly at: 'before' | 'after'
  readonly operation: WorldCall['operation']
  /** The name, or the prefix, in the store; empty for the KMS. */
  readonly subject: string
  /** How many calls of this wrapper came before. */
  readonly index: number
}

/**
 * The call fails with a code, or gets another answer: bytes of another's, or, since a host may say anything, a value of any
 * type. Before the call, it then never happens; after it, it has happened.
 */
export type Fault = { readonly fail: ErrorCode } | { readonly answer: unknown }

/**
 * Asked at every moment; undefined lets things go right. It may itself do what it likes meanwhile: kill an enclave, for
 * one, and then fail the call, so that a put is lost (`before`) or done (`after`) with nobody told.
 */
export type FaultPlan = (moment: Moment) => Fault | undefined | Promise<Fault | undefined>

/** A store in which `plan` decides what goes wrong. */
export const faultyStore = (store: Store, plan: FaultPlan): Store => aroundStore(store, injecting(plan))

/** A way to a KMS on which `plan` decides what goes wrong: a request lost (`before`), an answer lost or another (`after`). */
export const faultyKms = (kms: KmsLink, plan: FaultPlan): KmsLink => aroundKms(kms, injecting(plan))

const injecting = (plan: FaultPlan): Around => {
  let count = 0
  return async <T>({ operation, subject }: WorldCall, work: () => Promise<T>): Promise<T> => {
    const index = count++
    const before = await plan({ at: 'before', operation, subject, index })
    if (before !== undefined) return suffer(before) as T
    const answer = await work()
    const after = await plan({ at: 'after', operation, subject, index })
    return after === undefined ? answer : (suffer(after) as T)
  }
}

const suffer = (fault: Fault): unknown => {
  if ('fail' in fault) throw new KeyriseError(fault.fail, { detail: 'an injected fault' })
  return fault.answer
}
