import { createHash, X509Certificate } from 'node:crypto'
import { AsnConvert } from '@peculiar/asn1-schema'
import {
  BasicConstraints,
  Certificate,
  Extensions,
  id_ce_basicConstraints,
  id_ce_keyUsage,
  KeyUsage,
  KeyUsageFlags,
} from '@peculiar/asn1-x509'
import { copyBytes, equalPublicBytes } from '../protocol/bytes.js'

/**
 * Path validation (RFC 5280 §6.1) for chains that vouch for hardware: names, signatures, times, CA and path length constraints,
 * key usage, and no critical extension that is not understood. Revocation is not asked: such chains live for hours.
 */

/** ecdsa-with-SHA384 (RFC 5758 §3.2): what a signature of such a chain is, and nothing weaker. */
const ECDSA_SHA384 = '1.2.840.10045.4.3.3'
const CHAIN_LENGTH_MAX = 8
const CERTIFICATE_SIZE_BYTES_MAX = 8 * 1024

interface Parsed {
  readonly certificate: X509Certificate
  readonly isCa: boolean
  /** How many CA certificates may follow it; Infinity where it does not say. */
  readonly pathLengthMax: number
  readonly usage: number
}

export interface ChainOptions {
  /** SHA-256 of the only root that counts, in DER, 32 bytes. */
  readonly rootFingerprint: Uint8Array
  /** The root first, then each by the one before, in DER; the last one’s key is the result. */
  readonly claimedChain: readonly Uint8Array[]
  /** When all of them have to be valid, ms since the epoch. */
  readonly atMs: number
}

/** @returns the last certificate’s, once the chain to it is verified. @throws Error, which says what is wrong with it. */
export const verifyChain = ({ rootFingerprint, claimedChain, atMs }: ChainOptions): X509Certificate => {
  const [root] = claimedChain
  if (root === undefined || claimedChain.length < 2 || claimedChain.length > CHAIN_LENGTH_MAX)
    return refuse('its length')
  if (!equalPublicBytes(createHash('sha256').update(root).digest(), rootFingerprint)) return refuse('another root')
  const chain = claimedChain.map(parse)
  chain.forEach((one, index) => {
    checkTime(one.certificate, atMs)
    checkIssued(one.certificate, (chain[index - 1] ?? one).certificate)
    const isLeaf = index === chain.length - 1
    if (isLeaf) return
    if (!one.isCa) refuse('a certificate of what is no authority')
    // RFC 5280 §4.2.1.9: CA certificates behind this one, the last certificate not counted.
    if (chain.length - index - 2 > one.pathLengthMax) refuse('longer than an authority allows')
  })
  const leaf = chain[chain.length - 1] as Parsed
  if (leaf.isCa || (leaf.usage & KeyUsageFlags.digitalSignature) === 0) refuse('the last one is for something else')
  return leaf.certificate
}

const parse = (der: Uint8Array): Parsed => {
  if (der.length > CERTIFICATE_SIZE_BYTES_MAX) refuse('its size')
  const { tbsCertificate, signatureAlgorithm } = AsnConvert.parse(copyBytes(der).buffer, Certificate)
  if (signatureAlgorithm.algorithm !== ECDSA_SHA384) refuse('a signature algorithm')
  let constraints = new BasicConstraints()
  let usage = 0
  for (const { extnID, extnValue, critical } of tbsCertificate.extensions ?? new Extensions()) {
    if (extnID === id_ce_basicConstraints) constraints = AsnConvert.parse(extnValue, BasicConstraints)
    else if (extnID === id_ce_keyUsage) usage = AsnConvert.parse(extnValue, KeyUsage).toNumber()
    else if (critical) refuse('a critical extension')
  }
  return {
    certificate: new X509Certificate(der),
    isCa: constraints.cA,
    pathLengthMax: constraints.pathLenConstraint ?? Infinity,
    usage,
  }
}

const checkTime = ({ validFrom, validTo }: X509Certificate, atMs: number): void => {
  if (atMs < Date.parse(validFrom)) refuse('a certificate is not valid yet')
  if (atMs > Date.parse(validTo)) refuse('a certificate has expired')
}

/** Names, key identifiers, and that the issuer’s key may sign certificates; then the signature. */
const checkIssued = (certificate: X509Certificate, issuer: X509Certificate): void => {
  if (!certificate.checkIssued(issuer)) refuse('a certificate is not by the one before')
  if (!certificate.verify(issuer.publicKey)) refuse('a signature')
}

const refuse = (what: string): never => {
  throw new Error(`certificate chain: ${what}`)
}
