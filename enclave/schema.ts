import type { StandardSchemaV1 } from '@standard-schema/spec'
import { KeyriseError, type ErrorCode } from '../protocol/errors.js'

/**
 * The value as the schema gives it back: what the schema does not name is not in it. What it found wrong stays inside,
 * since it may quote the value. Where no schema is declared, nothing crosses: undefined.
 * @throws {KeyriseError} `code`.
 */
export const parse = async (
  schema: StandardSchemaV1 | undefined,
  value: unknown,
  code: ErrorCode,
): Promise<unknown> => {
  if (schema === undefined) return undefined
  const result = await schema['~standard'].validate(value)
  if (result.issues !== undefined) throw new KeyriseError(code)
  return result.value
}
