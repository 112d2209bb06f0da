import { allocate, asciiBytes, concatBytes, copyBytes, equalPublicBytes, type Bytes } from '../protocol/bytes.js'
import { decodeCbor, encodeCbor } from '../protocol/cbor.js'
import { FieldReader } from '../protocol/check.js'
import { isKeyriseError, KeyriseError } from '../protocol/errors.js'
import { verifyEd25519 } from '../protocol/crypto/keys.js'
import { sha256 } from '../protocol/crypto/primitives.js'

/**
 * A backup is one file: a line that names its format, the head’s size (u32, big-endian), the head (CBOR), the KMS identity’s
 * signature over the head, 64 bytes, and the parts, one behind the other. The head has each part’s name, size and SHA-256; so the
 * signature holds all of it, and parts of two backups do not mix. docs/custody.md.
 */
export interface BackupFile {
  /** Whose it is, 32 bytes; its signature is checked. */
  readonly identity: Bytes
  /** When it was made, by the KMS’s clock. */
  readonly timeMs: number
  readonly parts: ReadonlyMap<BackupPart, Bytes>
}

/** `keyring`: its file, sealed as it is. `ledger`: the log. `policy`: the policy’s file. `custodians`: what lies beside the keyring. */
const PARTS = ['keyring', 'ledger', 'policy', 'approvals', 'custodians'] as const
export type BackupPart = (typeof PARTS)[number]

const LINE = asciiBytes('keyrise/v1/backup\n')
const TAG = 'keyrise/v1/backup'
const CODE = 'ERR_BACKUP_INVALID'
const HEAD_SIZE_BYTES_MAX = 16 * 1024
const SIGNATURE_BYTES = 64

/** @param sign - Ed25519 by the KMS identity. */
export const encodeBackup = ({ identity, timeMs, parts }: BackupFile, sign: (message: Uint8Array) => Bytes): Bytes => {
  const list = [...parts].map(([name, bytes]) => ({ name, sizeBytes: bytes.length, digest: sha256(bytes) }))
  const head = encodeCbor([TAG, { identity, timeMs, parts: list }])
  const size = allocate(4)
  new DataView(size.buffer).setUint32(0, head.length)
  return concatBytes(LINE, size, head, sign(head), ...parts.values())
}

/** True for what begins as a backup, whole or not. */
export const isBackup = (claimed: Uint8Array): boolean => equalPublicBytes(claimed.subarray(0, LINE.length), LINE)

/** Verifies a backup’s signature and all of its parts, which are views of it. @throws {KeyriseError} ERR_BACKUP_INVALID. */
export const decodeBackup = (claimed: Bytes): BackupFile => {
  const start = LINE.length + 4
  if (claimed.length < start || !isBackup(claimed)) return refuse('no backup of this version')
  const headSize = new DataView(claimed.buffer, claimed.byteOffset).getUint32(LINE.length)
  if (headSize > HEAD_SIZE_BYTES_MAX || start + headSize + SIGNATURE_BYTES > claimed.length) return refuse('its size')
  const head = claimed.subarray(start, start + headSize)
  const { identity, timeMs, list } = readHead(head)
  const end = start + headSize + SIGNATURE_BYTES
  if (!verifyEd25519(identity, head, claimed.subarray(start + headSize, end))) return refuse('its signature')
  const parts = new Map<BackupPart, Bytes>()
  let offset = end
  for (const { name, sizeBytes, digest } of list) {
    const part = claimed.subarray(offset, offset + sizeBytes)
    if (parts.has(name) || !equalPublicBytes(sha256(part), digest)) return refuse(name)
    parts.set(name, part)
    offset += sizeBytes
  }
  if (offset !== claimed.length) return refuse('its size')
  return { identity, timeMs, parts }
}

const refuse = (detail: string): never => {
  throw new KeyriseError(CODE, { detail })
}

interface StatedPart {
  readonly name: BackupPart
  readonly sizeBytes: number
  readonly digest: Bytes
}

const readHead = (head: Uint8Array): { identity: Bytes; timeMs: number; list: StatedPart[] } => {
  try {
    const value = decodeCbor(copyBytes(head))
    if (!Array.isArray(value) || value.length !== 2 || value[0] !== TAG) return refuse('its head')
    const f = new FieldReader(value[1], ['identity', 'timeMs', 'parts'], CODE)
    return {
      identity: f.bytes('identity', 32),
      timeMs: f.count('timeMs'),
      list: f.list('parts', PARTS.length, readPart),
    }
  } catch (error) {
    throw isKeyriseError(error, CODE) ? error : new KeyriseError(CODE, { detail: 'its head', cause: error })
  }
}

const readPart = (claimed: unknown): StatedPart => {
  const f = new FieldReader(claimed, ['name', 'sizeBytes', 'digest'], CODE)
  const text = f.text('name', 32)
  const name = PARTS.find((known) => known === text)
  if (name === undefined) return refuse('a part of a later version')
  return { name, sizeBytes: f.count('sizeBytes'), digest: f.bytes('digest', 32) }
}
