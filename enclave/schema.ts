import type { StandardSchemaV1 } from '@standard-schema/spec'
import { KeyriseError, type ErrorCode } from '../protocol/errors.js'

/** True for what `await` would wait for. */
export const isPending = (value: unknown): value is PromiseLike<unknown> =>
  typeof value === 'object' && value !== null && typeof (value as { then?: unknown }).then === 'function'

/** `next` of a value, at once where it is there: a call whose code answers at once takes no turns of the promise queue. */
export const whenReady = (value: unknown, next: (value: unknown) => unknown): unknown =>
  isPending(value) ? value.then(next) : next(value)

/**
 * The value as the schema gives it back, or a promise of it where the schema checks asynchronously: what the schema does not
 * name is not in it. What it found wrong stays inside, since it may quote the value. Where no schema is declared, nothing
 * crosses: undefined.
 * @throws {KeyriseError} `code`, or rejects with it.
 */
export const parse = (schema: StandardSchemaV1 | undefined, value: unknown, code: ErrorCode): unknown => {
  if (schema === undefined) return undefined
  return whenReady(schema['~standard'].validate(value), (result) => {
    const { issues, value: parsed } = result as { readonly issues?: unknown; readonly value?: unknown }
    if (issues !== undefined) throw new KeyriseError(code)
    return parsed
  })
}
