import { isKeyriseError, KeyriseError, outsideCode, type ErrorCode } from '../protocol/errors.js'
import type { StoredObject } from './epoch-file.js'
import { formatObjectName } from './object-names.js'

/** What the reading of one entry fails with. */

export const lost = ({ name }: StoredObject): KeyriseError =>
  new KeyriseError('ERR_STATE_LOST', { detail: formatObjectName(name) })

export const mismatch = ({ name }: StoredObject): KeyriseError =>
  new KeyriseError('ERR_DIGEST_MISMATCH', { detail: formatObjectName(name) })

/** What an item fails with alone. Anything else says nothing about the item, and ends the read. */
const ITEM_CODES: readonly ErrorCode[] = [
  'ERR_ENTRY_MISSING',
  'ERR_STATE_LOST',
  'ERR_DIGEST_MISMATCH',
  'ERR_ENVELOPE_INVALID',
  'ERR_CONTEXT_MISMATCH',
  'ERR_STORE_CONFLICT',
  'ERR_STORE_FULL',
  'ERR_STORE_UNWRITABLE',
  'ERR_STORE_IO',
]
export const isOfItem = (error: unknown): error is KeyriseError =>
  isKeyriseError(error) && ITEM_CODES.includes(outsideCode(error.code))
