import { asciiBytes } from '../protocol/bytes.js'
import { KeyriseError } from '../protocol/errors.js'
import { equalSecret, sha256 } from '../protocol/crypto/primitives.js'
import { refuse, type Answer } from './http-listener.js'

const LENGTH_MIN = 32
const LENGTH_MAX = 1024
/** RFC 6750, section 2.1: `b64token`. */
const TOKEN_BYTES = new Set(asciiBytes('ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~+/='))

/**
 * Answers only who shows the token; everybody, where there is none. The console’s page, which holds nothing of the KMS, is let
 * through: it asks with the token that its address has.
 * @param token - borrowed; only its digest is kept. @throws {KeyriseError} ERR_CONFIG_INVALID.
 */
export const tokenAnswer = (token: Uint8Array | undefined, answer: Answer): Answer => {
  if (token === undefined) return answer
  checkToken(token)
  const wanted = sha256(token)
  return async (request, response, note) => {
    const path = request.url?.split('?', 1)[0]
    const isPage = request.method === 'GET' && (path === '/console' || path?.startsWith('/console/') === true)
    if (isPage || isShown(request.headers.authorization, wanted)) return answer(request, response, note)
    response.setHeader('www-authenticate', 'Bearer')
    refuse(response, [401, 'ERR_TOKEN_WRONG', 'authorization: Bearer, with the token'], note)
  }
}

/** What is compared has one length whatever was sent, and takes the same time wherever it differs. */
const isShown = (claimed: string | undefined, wanted: Uint8Array): boolean => {
  const shown = /^Bearer +(\S{1,1024})$/i.exec(claimed ?? '')?.[1]
  return equalSecret(sha256(Buffer.from(shown ?? '', 'latin1')), wanted)
}

const checkToken = (token: Uint8Array): void => {
  const isGood =
    token.length >= LENGTH_MIN && token.length <= LENGTH_MAX && token.every((byte) => TOKEN_BYTES.has(byte))
  if (!isGood)
    throw new KeyriseError('ERR_CONFIG_INVALID', {
      detail: `the admin token has ${String(LENGTH_MIN)} to ${String(LENGTH_MAX)} letters, digits or -._~+/ on one line`,
    })
}
