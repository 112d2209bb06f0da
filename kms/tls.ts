import { createSecureContext } from 'node:tls'
import { KeyriseError } from '../protocol/errors.js'

/** What a listener with TLS needs, each PEM (RFC 7468). */
export interface ServeTls {
  /** The server’s certificate, then those between it and its authority. */
  readonly cert: Uint8Array
  /** The private key; borrowed: zero-fill it when the KMS listens. */
  readonly key: Uint8Array
  /** The authorities whose clients are let in. Nobody is without a certificate of theirs. */
  readonly clientCa: Uint8Array
}

/** Without an authority every client is let in, and shows a token. */
export type ListenerTls = Omit<ServeTls, 'clientCa'> & Partial<Pick<ServeTls, 'clientCa'>>

/** @param where - whose they are, for messages. @throws {KeyriseError} ERR_CONFIG_INVALID, naming what cannot be used. */
export const checkTls = ({ cert, key, clientCa }: ListenerTls, where: string): void => {
  const check = (name: string, work: () => unknown): void => {
    try {
      work()
    } catch (error) {
      // What OpenSSL says names functions of its own, and never bytes of the key.
      throw new KeyriseError('ERR_CONFIG_INVALID', { detail: `${where}: ${name}`, cause: error })
    }
  }
  check('the certificate cannot be read', () => createSecureContext({ cert: lend(cert) }))
  check('the private key cannot be read, or is not the certificate’s', () => {
    createSecureContext({ cert: lend(cert), key: lend(key) })
  })
  if (clientCa === undefined) return
  check('the clients’ authority cannot be read', () => {
    if (!/-----BEGIN CERTIFICATE-----/.test(lend(clientCa).toString('latin1'))) throw new Error('no certificate')
    createSecureContext({ ca: lend(clientCa) })
  })
}

/** The same bytes as Node’s own class, not copied. */
export const lend = (bytes: Uint8Array): Buffer => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
