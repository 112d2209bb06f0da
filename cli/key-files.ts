import { createPrivateKey } from 'node:crypto'
import { allocate, type Bytes } from '../protocol/bytes.js'
import { isKeyriseError, KeyriseError } from '../protocol/errors.js'
import {
  parseX25519Identity,
  parseX25519Recipient,
  scryptIdentity,
  x25519Identity,
  x25519Recipient,
  type Identity,
  type Recipient,
} from '../protocol/crypto/recipients.js'
import type { Secret } from '../protocol/crypto/secret.js'
import { openInput, piecesOf } from './input.js'

/**
 * Keys as users keep them: identity files as age-keygen writes them, RSA keys as ssh-keygen does, recipients as text. Private keys
 * are read as bytes, which are wiped once the key is OpenSSL’s. What is rarely used, and takes a while to load, is loaded then.
 */

const FILE_SIZE_BYTES_MAX = 1024 * 1024
const [LF, CR, HASH] = [0x0a, 0x0d, 0x23] as const
const PEM_START = '-----BEGIN '
const OPENSSH_START = '-----BEGIN OPENSSH PRIVATE KEY-----'

/** Whole small file, to be wiped by the caller. @throws {KeyriseError} ERR_FILE_UNREADABLE, ERR_SIZE_LIMIT. */
export const readSmallFile = async (path: string): Promise<Bytes> => {
  using input = openInput(path)
  const buffer = allocate(FILE_SIZE_BYTES_MAX + 1)
  let size = 0
  try {
    for await (const piece of piecesOf(input)) {
      const taken = piece.subarray(0, buffer.length - size)
      buffer.set(taken, size)
      size += taken.length
      if (size > FILE_SIZE_BYTES_MAX) throw new KeyriseError('ERR_SIZE_LIMIT', { detail: `${path} is no file of keys` })
    }
    return buffer.slice(0, size)
  } finally {
    buffer.fill(0)
  }
}

/** Lines with something on them other than a comment, views of `bytes`. */
export const linesOf = (bytes: Uint8Array): { readonly number: number; readonly line: Uint8Array }[] => {
  const lines: { number: number; line: Uint8Array }[] = []
  for (let start = 0, number = 1; start < bytes.length; number++) {
    const found = bytes.indexOf(LF, start)
    const end = found === -1 ? bytes.length : found
    const line = bytes.subarray(start, bytes[end - 1] === CR && end > start ? end - 1 : end)
    if (line.length > 0 && line[0] !== HASH) lines.push({ number, line })
    start = end + 1
  }
  return lines
}

const startsWith = (bytes: Uint8Array, text: string): boolean =>
  bytes.length >= text.length && Array.from(text).every((character, index) => bytes[index] === character.charCodeAt(0))

/** Keys of one command. Post-quantum ones are held in memory until they are disposed of. */
export class Identities implements Disposable {
  readonly list: (Identity & Partial<Disposable>)[] = []

  /** @throws {KeyriseError} ERR_FILE_UNREADABLE, ERR_CONFIG_INVALID: it is no key file, or holds a key that we cannot read. */
  async addFile(path: string): Promise<void> {
    const bytes = await readSmallFile(path)
    try {
      if (startsWith(bytes, PEM_START)) {
        this.list.push(await sshIdentity(bytes, path))
        return
      }
      const lines = linesOf(bytes)
      if (lines.length === 0) throw new KeyriseError('ERR_CONFIG_INVALID', { detail: `${path} holds no key` })
      for (const { number, line } of lines) this.list.push(await ageIdentity(line, `${path}, line ${number}`))
    } finally {
      bytes.fill(0)
    }
  }

  /** @param passphrase - disposed of with the others. */
  addPassphrase(passphrase: Secret): void {
    this.list.push({ ...scryptIdentity(passphrase), [Symbol.dispose]: () => passphrase[Symbol.dispose]() })
  }

  [Symbol.dispose](): void {
    for (const identity of this.list) identity[Symbol.dispose]?.()
  }
}

const ageIdentity = async (line: Uint8Array, where: string): Promise<Identity> => {
  try {
    if (startsWith(line, 'AGE-SECRET-KEY-PQ-1')) {
      const { hybridIdentity, parseHybridIdentity } = await import('../protocol/crypto/hybrid.js')
      using seed = parseHybridIdentity(line)
      return hybridIdentity(seed)
    }
    using privateKey = parseX25519Identity(line)
    return x25519Identity(privateKey)
  } catch (error) {
    // Nothing of the line is shown: it may be a mistyped key.
    if (isKeyriseError(error, 'ERR_KEY_INVALID'))
      throw new KeyriseError('ERR_CONFIG_INVALID', { detail: `${where}: not a private key` })
    throw error
  }
}

const sshIdentity = async (pem: Bytes, path: string): Promise<Identity> => {
  const { sshRsaIdentity } = await import('../protocol/crypto/ssh-rsa.js')
  const refuse = (detail: string): never => {
    throw new KeyriseError('ERR_CONFIG_INVALID', { detail: `${path}: ${detail}` })
  }
  if (startsWith(pem, OPENSSH_START))
    return refuse('OpenSSH’s own format; `ssh-keygen -p -m PEM -f` on a copy of it makes a PEM file')
  try {
    return sshRsaIdentity(createPrivateKey({ key: Buffer.from(pem.buffer), format: 'pem' }))
  } catch (error) {
    return refuse(isKeyriseError(error) ? error.message : 'not a private key, or one behind a passphrase')
  }
}

/** A public key as text: `age1…`, `age1pq1…` or `ssh-rsa …`. @throws {KeyriseError} ERR_KEY_INVALID. */
const recipientOf = async (text: string, where: string): Promise<Recipient> => {
  try {
    if (text.startsWith('ssh-')) {
      const { parseSshRsaRecipient, sshRsaRecipient } = await import('../protocol/crypto/ssh-rsa.js')
      return sshRsaRecipient(parseSshRsaRecipient(text))
    }
    if (text.startsWith('age1pq1')) {
      const { hybridRecipient, parseHybridRecipient } = await import('../protocol/crypto/hybrid.js')
      return hybridRecipient(parseHybridRecipient(text))
    }
    return x25519Recipient(parseX25519Recipient(text))
  } catch (error) {
    if (isKeyriseError(error, 'ERR_KEY_INVALID'))
      throw new KeyriseError('ERR_KEY_INVALID', { detail: `${where}: ${error.detail ?? ''}` })
    throw error
  }
}

/**
 * @param texts - public keys. @param paths - files of them, one a line, with `#` comments.
 * @throws {KeyriseError} ERR_KEY_INVALID, ERR_FILE_UNREADABLE, ERR_CONFIG_INVALID.
 */
export const readRecipients = async (texts: readonly string[], paths: readonly string[]): Promise<Recipient[]> => {
  const recipients: Recipient[] = []
  for (const text of texts) recipients.push(await recipientOf(text.trim(), '--recipient'))
  for (const path of paths) {
    const lines = linesOf(await readSmallFile(path))
    if (lines.length === 0) throw new KeyriseError('ERR_CONFIG_INVALID', { detail: `${path} holds no public key` })
    for (const { number, line } of lines) {
      // A private key given by mistake is refused before it becomes a string.
      if (startsWith(line, 'AGE-') || startsWith(line, PEM_START))
        throw new KeyriseError('ERR_CONFIG_INVALID', { detail: `${path}: a private key; give its public key` })
      recipients.push(await recipientOf(new TextDecoder().decode(line).trim(), `${path}, line ${number}`))
    }
  }
  return recipients
}
