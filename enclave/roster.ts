import type { Bytes } from '../protocol/bytes.js'
import type { RosterMember } from '../protocol/contract.js'
import { verifyEd25519 } from '../protocol/crypto/keys.js'
import { KeyriseError } from '../protocol/errors.js'
import type { FlowId } from '../protocol/names.js'
import { type SessionReplies } from '../protocol/session.js'
import { decodeRoster } from '../protocol/statements.js'

/**
 * The members of `task`, as the KMS identity signed them.
 * @throws {KeyriseError} ERR_ROSTER_INVALID.
 */
export const verifyRoster = (
  { roster, signature }: SessionReplies['roster'],
  kmsIdentity: Bytes,
  task: FlowId,
): readonly RosterMember[] => {
  if (!verifyEd25519(kmsIdentity, roster, signature))
    throw new KeyriseError('ERR_ROSTER_INVALID', { detail: 'signature' })
  const claimed = decodeRoster(roster)
  if (claimed.task !== task) throw new KeyriseError('ERR_ROSTER_INVALID', { detail: 'another task’s' })
  return claimed.members
}
