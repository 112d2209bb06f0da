import { combine, split } from 'shamir-secret-sharing'
import { allocate, concatBytes, copyBytes, equalPublicBytes, toHex, type Bytes } from '../protocol/bytes.js'
import { decodeCbor, encodeCbor } from '../protocol/cbor.js'
import { FieldReader } from '../protocol/check.js'
import { isKeyriseError, KeyriseError } from '../protocol/errors.js'
import { CUSTODIAN_COUNT_MAX } from '../protocol/limits.js'
import type { Random } from '../protocol/ports.js'
import { decodeBech32, encodeBech32 } from '../protocol/crypto/bech32.js'
import { labelled } from '../protocol/crypto/labels.js'
import { sha256 } from '../protocol/crypto/primitives.js'
import { Secret } from '../protocol/crypto/secret.js'

/**
 * Custody by k of n people: the keyring’s passphrase is made of 32 random bytes that nobody keeps, and each custodian has a
 * share of them (Shamir, How to share a secret, 1979, over GF(2⁸)). What lies beside the keyring is public: who the shares are
 * for, how many it takes, and a digest of each share, by which one is checked alone, as it is submitted. A share has more than
 * 256 bits that cannot be guessed, so its digest tells nothing of it.
 */
export interface CustodianSet {
  /** The KMS’s identity, 32 bytes. */
  readonly identity: Bytes
  /** Of this splitting, 8 bytes: shares of another do not mix with it. */
  readonly set: Bytes
  readonly threshold: number
  /** SHA-256 of each share in the order of the custodians, 32 bytes each. */
  readonly commitments: readonly Bytes[]
}

/** What one custodian is given. */
export interface Share {
  /** From 1. */
  readonly index: number
  /** ASCII: Bech32, so that a mistyped one is told. */
  readonly text: Secret
}

const TAG = 'keyrise/v1/custodians'
const CODE = 'ERR_SHARE_INVALID'
const SHARED_BYTES = 32
/** The value of the polynomial for each byte, then its argument. */
const SHARE_BYTES = SHARED_BYTES + 1
const SET_BYTES = 8
const FINGERPRINT_BYTES = 8
/** Version, set, the KMS’s fingerprint, index, share. */
const HEAD_BYTES = 1 + SET_BYTES + FINGERPRINT_BYTES + 1
const VERSION = 1
const SHARE_PREFIX = 'keyrise-share-'
const PASSPHRASE_PREFIX = 'keyrise-custody-'
/** Before anything is decoded. */
const SHARE_LENGTH_MAX = 256
export const CUSTODIANS_SIZE_BYTES_MAX = 4096

/** How an identity is named where people compare: its first eight bytes, in hex. */
export const fingerprintOf = (identity: Uint8Array): string => toHex(identity.subarray(0, FINGERPRINT_BYTES))

/** @throws {KeyriseError} ERR_CONFIG_INVALID: no such splitting. */
export const checkCustodians = (count: number, threshold: number): void => {
  if (!(threshold >= 2 && threshold <= count && count <= CUSTODIAN_COUNT_MAX))
    throw new KeyriseError('ERR_CONFIG_INVALID', {
      detail: `${threshold} of ${count} custodians; 2 to ${CUSTODIAN_COUNT_MAX} of them, and at least 2 needed`,
    })
}

/**
 * Makes a passphrase and its shares, and sees that they give it back. The library’s own copies stay in memory until they are
 * overwritten: docs/memory.md.
 * @returns all to be disposed of by the caller. @throws {KeyriseError} ERR_CONFIG_INVALID.
 */
export const splitPassphrase = async (options: {
  readonly identity: Uint8Array
  readonly count: number
  readonly threshold: number
  readonly random: Random
}): Promise<{ passphrase: Secret; shares: Share[]; set: CustodianSet }> => {
  const { identity, count, threshold, random } = options
  checkCustodians(count, threshold)
  const set = random.fill(allocate(SET_BYTES))
  using shared = Secret.random(SHARED_BYTES, random)
  const parts = (await shared.expose((bytes) => split(bytes, count, threshold))).map((part) => Secret.take(part))
  const custodians: CustodianSet = {
    identity: copyBytes(identity),
    set,
    threshold,
    commitments: parts.map((part, index) => part.expose((bytes) => commitmentOf(set, index + 1, bytes))),
  }
  const shares = parts.map((part, index) => ({ index: index + 1, text: encodeShare(custodians, index + 1, part) }))
  const passphrase = passphraseOf(shared)
  using again = await joinParts(parts.slice(-threshold))
  for (const part of parts) part[Symbol.dispose]()
  if (!again.equals(passphrase)) throw new Error('The shares do not give back what was shared')
  return { passphrase, shares, set: custodians }
}

const commitmentOf = (set: Uint8Array, index: number, part: Uint8Array): Bytes =>
  sha256(...labelled('share-commitment', set, Uint8Array.of(index), part))

/** Text, so that who joins the shares by other means can type it. */
const passphraseOf = (shared: Secret): Secret =>
  Secret.take(shared.expose((bytes) => encodeBech32(PASSPHRASE_PREFIX, bytes)))

const encodeShare = ({ identity, set }: CustodianSet, index: number, part: Secret): Secret =>
  part.expose((bytes) => {
    const head = [Uint8Array.of(VERSION), set, identity.subarray(0, FINGERPRINT_BYTES), Uint8Array.of(index)]
    const whole = concatBytes(...head, bytes)
    const text = Secret.take(encodeBech32(SHARE_PREFIX, whole))
    whole.fill(0)
    return text
  })

/** The passphrase of as many shares as it takes. */
const joinParts = async (parts: readonly Secret[]): Promise<Secret> => {
  const copies = parts.map((part) => part.expose(copyBytes))
  try {
    using shared = Secret.take(await combine(copies))
    return passphraseOf(shared)
  } finally {
    for (const copy of copies) copy.fill(0)
  }
}

/**
 * One share, checked by itself.
 * @param claimed - what a custodian typed, or the line of a file; borrowed. White space around it does not count.
 * @throws {KeyriseError} ERR_SHARE_INVALID, which says whether it is mistyped, of another KMS, of another splitting, or forged.
 */
const readShare = (custodians: CustodianSet, claimed: Uint8Array): { index: number; part: Secret } => {
  const { identity, set, commitments } = custodians
  const bytes = claimed.length > SHARE_LENGTH_MAX ? undefined : decodeBech32(SHARE_PREFIX, trimmed(claimed))
  if (bytes === undefined) throw new KeyriseError(CODE, { detail: 'mistyped: its checksum does not fit' })
  try {
    if (bytes[0] !== VERSION || bytes.length !== HEAD_BYTES + SHARE_BYTES)
      throw new KeyriseError(CODE, { detail: 'of a later version' })
    const fingerprint = bytes.subarray(1 + SET_BYTES, HEAD_BYTES - 1)
    if (!equalPublicBytes(fingerprint, identity.subarray(0, FINGERPRINT_BYTES)))
      throw new KeyriseError(CODE, { detail: `of another KMS, ${toHex(fingerprint)}` })
    const index = bytes[HEAD_BYTES - 1] ?? 0
    if (!equalPublicBytes(bytes.subarray(1, 1 + SET_BYTES), set))
      throw new KeyriseError(CODE, { detail: `share ${index} of an earlier splitting` })
    const commitment = commitments[index - 1]
    if (commitment === undefined || !equalPublicBytes(commitmentOf(set, index, bytes.subarray(HEAD_BYTES)), commitment))
      throw new KeyriseError(CODE, { detail: `share ${index} is not the one that was given out` })
    return { index, part: Secret.take(bytes.subarray(HEAD_BYTES)) }
  } finally {
    bytes.fill(0)
  }
}

const isSpace = (byte: number | undefined): boolean => byte === 32 || (byte !== undefined && byte >= 9 && byte <= 13)
const trimmed = (bytes: Uint8Array): Uint8Array => {
  let [start, end] = [0, bytes.length]
  while (start < end && isSpace(bytes[start])) start++
  while (end > start && isSpace(bytes[end - 1])) end--
  return bytes.subarray(start, end)
}

/** How far the custodians are. */
export interface ShareProgress {
  /** Whose shares are there, in order. */
  readonly submitted: readonly number[]
  readonly threshold: number
  readonly count: number
}

/** Shares as they come in, one by one, until there are enough of them. */
export class ShareCollector implements Disposable {
  readonly custodians: CustodianSet
  readonly #parts = new Map<number, Secret>()

  constructor(custodians: CustodianSet) {
    this.custodians = custodians
  }

  get progress(): ShareProgress {
    const { threshold, commitments } = this.custodians
    return { submitted: [...this.#parts.keys()].sort((a, b) => a - b), threshold, count: commitments.length }
  }

  get isComplete(): boolean {
    return this.#parts.size >= this.custodians.threshold
  }

  /** @param claimed - borrowed. The same share twice counts once. @throws {KeyriseError} ERR_SHARE_INVALID. */
  submit(claimed: Uint8Array): ShareProgress {
    const { index, part } = readShare(this.custodians, claimed)
    this.#parts.get(index)?.[Symbol.dispose]()
    this.#parts.set(index, part)
    return this.progress
  }

  /** The passphrase, once it is complete; the caller disposes of it. The shares are forgotten. */
  async join(): Promise<Secret> {
    try {
      return await joinParts([...this.#parts.values()].slice(0, this.custodians.threshold))
    } finally {
      this[Symbol.dispose]()
    }
  }

  [Symbol.dispose](): void {
    for (const part of this.#parts.values()) part[Symbol.dispose]()
    this.#parts.clear()
  }
}

export const encodeCustodians = ({ identity, set, threshold, commitments }: CustodianSet): Bytes =>
  encodeCbor([TAG, { identity, set, threshold, commitments }])

/** @throws {KeyriseError} ERR_CUSTODIANS_INVALID. */
export const decodeCustodians = (claimed: Uint8Array): CustodianSet => {
  const code = 'ERR_CUSTODIANS_INVALID'
  try {
    const value = decodeCbor(claimed)
    if (!Array.isArray(value) || value.length !== 2 || value[0] !== TAG) throw new KeyriseError(code)
    const f = new FieldReader(value[1], ['identity', 'set', 'threshold', 'commitments'], code)
    const commitments = f.list('commitments', CUSTODIAN_COUNT_MAX, (item) =>
      new FieldReader({ item }, ['item'], code).bytes('item', 32),
    )
    const threshold = f.count('threshold', commitments.length, 2)
    return { identity: f.bytes('identity', 32), set: f.bytes('set', SET_BYTES), threshold, commitments }
  } catch (error) {
    throw isKeyriseError(error, code) ? error : new KeyriseError(code, { cause: error })
  }
}
