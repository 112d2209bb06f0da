import { X509Certificate } from 'node:crypto'
import { certify, type Authority, type CertificateOptions } from './nitro-documents.js'

const DAY_MS = 86_400_000

/** A certificate that is valid today, by `issuer` or by itself. */
const certifyNow = (issuer: Authority | undefined, options: CertificateOptions): Authority =>
  certify(issuer, { fromMs: Date.now() - DAY_MS, toMs: Date.now() + DAY_MS, ...options })

const pem = ({ der }: Authority): Buffer => Buffer.from(new X509Certificate(der).toString())
const keyPem = ({ privateKey }: Authority): Buffer =>
  Buffer.from(privateKey.export({ format: 'pem', type: 'pkcs8' }) as string)

/** An authority, a server of it at 127.0.0.1, and clients: all PEM. */
export const makeCertificates = () => {
  const [authority, clientAuthority] = [
    certifyNow(undefined, { name: 'ca' }),
    certifyNow(undefined, { name: 'clients' }),
  ]
  const server = certifyNow(authority, { name: 'server', isCa: false, isLoopback: true })
  const client = (options: CertificateOptions = {}, issuer = clientAuthority) => {
    const made = certifyNow(issuer, { name: 'client', isCa: false, ...options })
    return { ca: pem(authority), cert: pem(made), key: keyPem(made) }
  }
  return {
    server: { cert: pem(server), key: keyPem(server), clientCa: pem(clientAuthority) },
    client: client(),
    strange: client({}, authority),
    expired: client({ fromMs: Date.now() - 2 * DAY_MS, toMs: Date.now() - DAY_MS }),
  }
}
