import type { PlantedFault } from '../fault.js'

const FRAMES = { file: 'kms/log-frames.ts', test: 'kms/ledger.test' }
const FRESHNESS = { test: 'enclave/recovery-freshness.test' }
const HEADER = { file: 'protocol/age-header.ts', test: 'crypto/age-header.test' }
const PAYLOAD = { file: 'protocol/crypto/payload.ts', test: 'crypto/payload.test' }

/** Digests, authentication codes, lengths and limits. */
export const INTEGRITY: readonly PlantedFault[] = [
  {
    ...FRESHNESS,
    name: 'an entry’s epoch file is not compared with its digest',
    file: 'enclave/object-opener.ts',
    find: 'if (!hasDigest(envelope, object)) throw mismatch(object)',
    put: '',
  },
  {
    name: 'an entry sealed to the KMS is not compared with its digest',
    file: 'enclave/object-opener.ts',
    find: 'candidates.filter(({ envelope }) => hasDigest(envelope, object))',
    put: '[...candidates]',
    test: 'enclave/recovery-pairs.test',
  },
  {
    ...FRESHNESS,
    name: 'the head is known by its name alone',
    file: 'enclave/survey.ts',
    find: 'equalPublicBytes(digest, head.digest) &&',
    put: '',
  },
  {
    ...FRAMES,
    name: 'the digest of a ledger’s frame is not compared',
    find: '!equalPublicBytes(chain, rest.subarray(size - CHAIN_BYTES, size))',
    put: 'false',
  },
  {
    ...FRAMES,
    name: 'the check of a ledger frame’s size is not compared',
    find: '!equalPublicBytes(checkOf(chain, size), rest.subarray(0, CHECK_BYTES))',
    put: 'false',
  },
  {
    ...FRAMES,
    name: 'any damage to the ledger passes for a write that was cut short',
    find: 'end.size > 0 && isCutShort(rest, end)',
    put: 'end.size > 0',
  },
  {
    ...FRAMES,
    name: 'the ledger’s frames are not chained',
    find: 'const chain = sha256(end.chain, size, body)',
    put: 'const chain = sha256(FIRST_CHAIN, size, body)',
  },
  {
    name: 'a keyring’s public halves are not compared with the secret ones',
    file: 'kms/keyring-format.ts',
    find: '!equalPublicBytes(encodeCertificateBody(made), encodeCertificateBody(certificate))',
    put: 'false',
    test: 'kms/keyring.test',
  },
  {
    name: 'the header’s MAC is not verified',
    file: 'protocol/crypto/file-key.ts',
    find: '!equalSecret(header.mac, expected)',
    put: 'false',
    test: 'crypto/envelope.test',
  },
  {
    name: 'a passphrase may stand beside other recipients',
    file: 'protocol/crypto/file-key.ts',
    find: 'stanzas.length > 1 && stanzas.some(',
    put: 'stanzas.length < 0 && stanzas.some(',
    test: 'crypto/vectors.test',
  },
  {
    name: 'scrypt’s work factor is not limited',
    file: 'protocol/crypto/recipients.ts',
    find: 'if (logN > logNMax)',
    put: 'if (false)',
    test: 'crypto/recipients.test',
  },
  {
    ...PAYLOAD,
    name: 'the last chunk is not marked',
    find: 'isLast ? 1 : 0',
    put: '0',
    title: 'cut between chunks',
  },
  {
    ...PAYLOAD,
    name: 'chunks are not counted',
    find: 'this.#view.setUint32(7, index)',
    put: '',
    title: 'chunks swapped',
  },
  {
    ...PAYLOAD,
    name: 'an empty chunk may end a payload that others fill',
    find: 'lastSize > TAG_SIZE || run.first + count === 1',
    put: 'true',
    title: 'a last chunk that is empty',
  },
  {
    ...PAYLOAD,
    name: 'what was decrypted before a failure stays in memory',
    find: 'if (!isOpen) into.fill(0)',
    put: '',
    title: 'a run at another place',
  },
  {
    ...HEADER,
    name: 'a header is read beyond its limit',
    find: 'claimed.subarray(0, HEADER_SIZE_BYTES_MAX)',
    put: 'claimed',
  },
  { ...HEADER, name: 'stanzas are not counted', find: 'stanzas.length === STANZA_COUNT_MAX', put: 'false' },
  {
    name: 'a file larger than its limit is read',
    file: 'storage/durable.ts',
    find: 'size > sizeBytesMax',
    put: 'false',
    test: 'storage/publish.test',
  },
]
