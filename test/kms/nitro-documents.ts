import { generateKeyPairSync, sign, type KeyObject } from 'node:crypto'
import { AsnConvert, OctetString } from '@peculiar/asn1-schema'
import {
  AlgorithmIdentifier,
  AttributeTypeAndValue,
  AttributeValue,
  BasicConstraints,
  Certificate,
  Extension,
  Extensions,
  id_ce_basicConstraints,
  id_ce_keyUsage,
  id_ce_subjectAltName,
  KeyUsage,
  KeyUsageFlags,
  Name,
  RelativeDistinguishedName,
  SubjectPublicKeyInfo,
  TBSCertificate,
  Validity,
  Version,
} from '@peculiar/asn1-x509'
import { encode } from 'cborg'
import { allocate, copyBytes, type Bytes } from '../../protocol/bytes.js'
import { encodeCbor } from '../../protocol/cbor.js'

/** Nitro attestation documents of a security module of our own, right and wrong in every way. */

export const NOW_MS = Date.UTC(2026, 5, 1)
const HOUR_MS = 3_600_000
const ECDSA_SHA256 = '1.2.840.10045.4.3.2'
const ECDSA_SHA384 = '1.2.840.10045.4.3.3'

export interface CertificateOptions {
  readonly name?: string
  /** What the certificate names as its issuer, where it lies. */
  readonly issuerName?: string
  readonly isCa?: boolean
  readonly pathLengthMax?: number
  readonly usage?: KeyUsageFlags
  readonly fromMs?: number
  readonly toMs?: number
  /** An extension that nobody knows. */
  readonly critical?: boolean
  readonly isWeak?: boolean
  /** Certifies the address 127.0.0.1. */
  readonly isLoopback?: boolean
}

export interface Authority {
  readonly name: string
  readonly privateKey: KeyObject
  readonly der: Bytes
}

const nameOf = (text: string): Name =>
  new Name([
    new RelativeDistinguishedName([
      new AttributeTypeAndValue({ type: '2.5.4.3', value: new AttributeValue({ utf8String: text }) }),
    ]),
  ])

/** GeneralNames (RFC 5280 §4.2.1.6) of one iPAddress, 127.0.0.1. */
const LOOPBACK_NAMES = Uint8Array.of(0x30, 6, 0x87, 4, 127, 0, 0, 1)

const extensionsOf = (options: CertificateOptions): Extensions => {
  const { isCa = true, pathLengthMax, usage, critical, isLoopback = false } = options
  const extension = (extnID: string, value: unknown, isCritical = true) =>
    new Extension({ extnID, critical: isCritical, extnValue: new OctetString(AsnConvert.serialize(value)) })
  const constraints = new BasicConstraints({
    cA: isCa,
    ...(pathLengthMax === undefined ? {} : { pathLenConstraint: pathLengthMax }),
  })
  return new Extensions([
    extension(id_ce_basicConstraints, constraints),
    extension(
      id_ce_keyUsage,
      new KeyUsage(usage ?? (isCa ? KeyUsageFlags.keyCertSign : KeyUsageFlags.digitalSignature)),
    ),
    ...(isLoopback
      ? [new Extension({ extnID: id_ce_subjectAltName, extnValue: new OctetString(LOOPBACK_NAMES) })]
      : []),
    ...(critical === undefined ? [] : [extension('1.2.3.4', new OctetString([1]), critical)]),
  ])
}

/** A certificate by `issuer`, or by itself. */
export const certify = (issuer: Authority | undefined, options: CertificateOptions = {}): Authority => {
  const { name = 'authority', isWeak = false } = options
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-384' })
  const algorithm = new AlgorithmIdentifier({ algorithm: isWeak ? ECDSA_SHA256 : ECDSA_SHA384 })
  const tbsCertificate = new TBSCertificate({
    version: Version.v3,
    serialNumber: Uint8Array.of(1).buffer,
    signature: algorithm,
    issuer: nameOf(options.issuerName ?? issuer?.name ?? name),
    validity: new Validity({
      notBefore: new Date(options.fromMs ?? NOW_MS - HOUR_MS),
      notAfter: new Date(options.toMs ?? NOW_MS + HOUR_MS),
    }),
    subject: nameOf(name),
    subjectPublicKeyInfo: AsnConvert.parse(
      copyBytes(publicKey.export({ format: 'der', type: 'spki' })).buffer,
      SubjectPublicKeyInfo,
    ),
    extensions: extensionsOf(options),
  })
  const toSign = new Uint8Array(AsnConvert.serialize(tbsCertificate))
  const signature = copyBytes(sign(isWeak ? 'sha256' : 'sha384', toSign, issuer?.privateKey ?? privateKey))
  const certificate = new Certificate({
    tbsCertificate,
    signatureAlgorithm: algorithm,
    signatureValue: signature.buffer,
  })
  return { name, privateKey, der: copyBytes(new Uint8Array(AsnConvert.serialize(certificate))) }
}

/** Root, two authorities with path lengths as AWS has them, and a security module. */
export const makeChain = (): Authority[] => {
  const root = certify(undefined, { name: 'root' })
  const region = certify(root, { name: 'region', pathLengthMax: 1 })
  const instance = certify(region, { name: 'instance', pathLengthMax: 0 })
  return [root, region, instance, certify(instance, { name: 'module', isCa: false })]
}

export const pcr = (value: number): Bytes => allocate(48).fill(value)

export interface DocumentOptions {
  readonly chain: readonly Authority[]
  /** Fields instead of those of a sound document. */
  readonly fields?: Readonly<Record<string, unknown>>
  readonly unprotected?: ReadonlyMap<number, number>
  readonly algorithm?: number
  /** RFC 9052 §2: written in front. */
  readonly isTagged?: boolean
}

/** A document for a handshake whose nonce is 32 times 1 and whose key is 32 times 2. */
export const makeDocument = ({ chain, fields, unprotected, algorithm, isTagged = false }: DocumentOptions): Bytes => {
  const module = chain.at(-1) as Authority
  const payload = encode(
    new Map<string, unknown>(
      Object.entries({
        module_id: 'i-1-enc1',
        digest: 'SHA384',
        timestamp: NOW_MS,
        pcrs: new Map([0, 1, 2, 3].map((index) => [index, pcr(index + 1)])),
        certificate: module.der,
        cabundle: chain.slice(0, -1).map(({ der }) => der),
        public_key: allocate(32).fill(2),
        user_data: encodeCbor({ name: 'party', svn: 3, configDigest: allocate(32).fill(4) }),
        nonce: allocate(32).fill(1),
        ...fields,
      }),
    ),
  )
  const header = encode(new Map([[1, algorithm ?? -35]]))
  const toSign = encode(['Signature1', header, new Uint8Array(0), payload])
  const signature = sign('sha384', toSign, { key: module.privateKey, dsaEncoding: 'ieee-p1363' })
  const document = encode([header, unprotected ?? new Map<number, number>(), payload, new Uint8Array(signature)])
  return copyBytes(isTagged ? Uint8Array.of(0xd2, ...document) : document)
}
