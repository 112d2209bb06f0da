import { KeyriseError } from '../protocol/errors.js'
import { REASON_LENGTH_MAX } from '../protocol/limits.js'

/** Refuses an operator’s reason that a receipt could not hold, or that says nothing. @throws {KeyriseError} ERR_CONFIG_INVALID. */
export const checkReason = (reason: string): void => {
  if (reason.trim() === '' || reason.length > REASON_LENGTH_MAX)
    throw new KeyriseError('ERR_CONFIG_INVALID', { detail: `a reason of 1 to ${REASON_LENGTH_MAX} characters` })
}
