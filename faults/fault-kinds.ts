import type { ErrorCode } from '../protocol/errors.js'
import type { DiskImage } from './disk.js'
import type { Boundary, BoundaryFault } from './faulty-port.js'
import type { FileFault } from './memory-file-system.js'
import type { MessageFault } from './simulated-wire.js'
import type { Disks, Machine, WorldOperation } from './simulated-world.js'

/** What can go wrong, by name: at one operation or message of a run, or with what lies on the disks between two runs. */

/** Strikes once, at one operation; the flow is recovered afterwards, whatever its steps were told. */
export interface LiveKind {
  readonly name: string
  readonly strikes: (operation: WorldOperation) => boolean
  readonly fault: FileFault | MessageFault | BoundaryFault | { readonly jumpMs: number }
  /** The machine’s unsynced changes are lost with it. */
  readonly isPowerCut?: boolean
}

const fileOperation = (...kinds: readonly string[]) => {
  const strikes = ({ on, name }: WorldOperation): boolean =>
    (on === 'host' || on === 'kms') && (kinds.length === 0 || kinds.includes(name.split(' ')[0] ?? ''))
  return strikes
}
const request = ({ on }: WorldOperation): boolean => on === 'request'
const reply = ({ on }: WorldOperation): boolean => on === 'reply'
/** Of either port: a call out of the enclave, an answer to it, … */
const crossing =
  (boundary: Boundary, ...words: readonly string[]): LiveKind['strikes'] =>
  ({ on, name }) =>
    on === boundary && words.includes(name.split(' ')[1] ?? '')
const either =
  (...all: readonly LiveKind['strikes'][]): LiveKind['strikes'] =>
  (operation) =>
    all.some((strikes) => strikes(operation))
const STREAM = 'stream'
const ofStream = either(crossing('ecall', STREAM), crossing('ocall', STREAM))
/** Items belong to whoever streams them: a host may leave some out. What a stream is steered by belongs to both. */
const steering: LiveKind['strikes'] = (operation) => ofStream(operation) && operation.name.split(' ')[2] !== 'ITEM'
/** To make an ECALL twice is a host’s right; a key makes the two one. */
const keyed: LiveKind['strikes'] = ({ on, name }) => on === 'ecall' && name.includes(' with a key')
/** What an author’s own OCALL answers is the host’s to say. */
const ofRuntime: LiveKind['strikes'] = ({ on, name }) => on === 'ocall' && name.includes(' answer keyrise:')
const toEnclave = either(crossing('ecall', 'call'), crossing('ocall', 'answer'))
const fromEnclave = either(crossing('ecall', 'ready', 'answer'), crossing('ocall', 'call'))
const DAY_MS = 24 * 60 * 60 * 1000

export const LIVE_KINDS: readonly LiveKind[] = [
  {
    name: 'disk full',
    strikes: fileOperation('open', 'write', 'makeDirectory', 'rename', 'sync'),
    fault: { fail: 'ENOSPC' },
  },
  {
    name: 'device error',
    strikes: fileOperation('open', 'read', 'write', 'truncate', 'rename', 'unlink', 'makeDirectory', 'list'),
    fault: { fail: 'EIO' },
  },
  { name: 'too many open files', strikes: fileOperation('open'), fault: { fail: 'EMFILE' } },
  {
    name: 'read-only file system',
    strikes: fileOperation('open', 'write', 'truncate', 'rename', 'unlink', 'makeDirectory'),
    fault: { fail: 'EROFS' },
  },
  { name: 'short write', strikes: fileOperation('write'), fault: { countMax: 7 } },
  { name: 'short read', strikes: fileOperation('read'), fault: { countMax: 7 } },
  { name: 'failed fsync', strikes: fileOperation('sync', 'syncDirectory'), fault: { fail: 'EIO' } },
  { name: 'power cut before an operation', strikes: fileOperation(), fault: 'stop-before', isPowerCut: true },
  { name: 'power cut after an operation', strikes: fileOperation(), fault: 'stop-after', isPowerCut: true },
  { name: 'request lost', strikes: request, fault: 'lose' },
  { name: 'answer lost', strikes: reply, fault: 'lose' },
  { name: 'request doubled', strikes: request, fault: 'double' },
  { name: 'earlier request replayed', strikes: request, fault: 'replay' },
  { name: 'request reordered', strikes: request, fault: 'late' },
  { name: 'request damaged', strikes: request, fault: 'damage' },
  { name: 'answer damaged', strikes: reply, fault: 'damage' },
  { name: 'request delayed beyond its deadline', strikes: request, fault: 'never' },
  { name: 'answer delayed beyond its deadline', strikes: reply, fault: 'never' },
  { name: 'KMS gone at a request', strikes: request, fault: 'kms-stops' },
  { name: 'KMS gone at an answer', strikes: reply, fault: 'kms-stops' },
  { name: 'message to the enclave lost', strikes: toEnclave, fault: 'lose' },
  { name: 'message of the enclave lost', strikes: fromEnclave, fault: 'lose' },
  { name: 'message to the enclave doubled', strikes: either(keyed, crossing('ocall', 'answer')), fault: 'double' },
  { name: 'message of the enclave doubled', strikes: fromEnclave, fault: 'double' },
  { name: 'message to the enclave replayed', strikes: either(keyed, crossing('ocall', 'answer')), fault: 'replay' },
  { name: 'message of the enclave replayed', strikes: fromEnclave, fault: 'replay' },
  { name: 'message to the enclave reordered', strikes: toEnclave, fault: 'late' },
  { name: 'message of the enclave reordered', strikes: fromEnclave, fault: 'late' },
  { name: 'message to the enclave delayed beyond its deadline', strikes: toEnclave, fault: 'delay' },
  { name: 'message of the enclave delayed beyond its deadline', strikes: fromEnclave, fault: 'delay' },
  { name: 'answer to the enclave damaged', strikes: ofRuntime, fault: 'damage' },
  { name: 'enclave gone at a message to it', strikes: toEnclave, fault: 'cut' },
  { name: 'enclave gone at a message of its own', strikes: fromEnclave, fault: 'cut' },
  { name: 'enclave gone at a message of a stream', strikes: ofStream, fault: 'cut' },
  { name: 'word about a stream lost', strikes: steering, fault: 'lose' },
  { name: 'word about a stream doubled', strikes: steering, fault: 'double' },
  { name: 'word about a stream reordered', strikes: steering, fault: 'late' },
  { name: 'word about a stream delayed beyond its deadline', strikes: steering, fault: 'delay' },
  { name: 'clock jumps forwards', strikes: () => true, fault: { jumpMs: DAY_MS } },
  { name: 'clock jumps backwards', strikes: () => true, fault: { jumpMs: -DAY_MS } },
]

/** What may be said of damage. Anything else, or another state than the flow was in, is a violation. */
export const DAMAGE_CODES: readonly ErrorCode[] = [
  'ERR_STATE_LOST',
  'ERR_ROLLBACK',
  'ERR_FORK',
  'ERR_DIGEST_MISMATCH',
  'ERR_ENVELOPE_INVALID',
  'ERR_KEY_UNKNOWN',
  'ERR_KMS_UNTRUSTED',
  'ERR_LEDGER_DAMAGED',
  'ERR_LEDGER_MISSING',
  'ERR_LEDGER_CONFLICT',
  'ERR_LEDGER_ROLLED_BACK',
  'ERR_KEYRING_MISSING',
  'ERR_KEYRING_INVALID',
  'ERR_CUSTODIANS_INVALID',
  'ERR_PASSPHRASE_WRONG',
]

/** Changes what a machine’s disk holds while nothing runs. */
export interface DamageKind {
  readonly name: string
  /**
   * @param earlier - what the disks held at an earlier moment of the same run.
   * @returns undefined where it would change nothing.
   */
  readonly damage: (place: DamagePlace, disks: Disks, earlier: Disks) => DiskImage | undefined
  /** It strikes a disk as a whole, and these. */
  readonly wholeOf?: readonly Machine[]
}

export interface DamagePlace {
  readonly machine: Machine
  /** A file. */
  readonly path: string
  /** Another file of the same disk. */
  readonly other: string
}

const ofFile =
  (change: (bytes: Uint8Array, other: Uint8Array) => Uint8Array | null): DamageKind['damage'] =>
  ({ machine, path, other }, disks) => {
    const image = disks[machine]
    const bytes = fileAt(image, path)
    if (bytes === undefined) return undefined
    const changed = change(bytes, image.get(other) ?? new Uint8Array())
    if (changed !== null && equal(changed, bytes)) return undefined
    return changed === null ? without(image, path) : replaced(image, path, changed)
  }

const fileAt = (image: DiskImage, path: string): Uint8Array | undefined => image.get(path) ?? undefined
const equal = (a: Uint8Array, b: Uint8Array): boolean =>
  a.length === b.length && a.every((byte, index) => byte === b[index])
const replaced = (image: DiskImage, path: string, bytes: Uint8Array): DiskImage => new Map(image).set(path, bytes)
const without = (image: DiskImage, path: string): DiskImage => {
  const left = new Map(image)
  left.delete(path)
  return left
}
const flipped = (bytes: Uint8Array, at: number): Uint8Array =>
  bytes.map((byte, index) => (index === at ? byte ^ (1 << (at % 8)) : byte))

export const DAMAGE_KINDS: readonly DamageKind[] = [
  { name: 'bit rot at the start', damage: ofFile((bytes) => flipped(bytes, 40)) },
  { name: 'bit rot in the middle', damage: ofFile((bytes) => flipped(bytes, bytes.length >>> 1)) },
  { name: 'bit rot at the end', damage: ofFile((bytes) => flipped(bytes, bytes.length - 1)) },
  { name: 'truncated by half', damage: ofFile((bytes) => bytes.slice(0, bytes.length >>> 1)) },
  { name: 'truncated by a byte', damage: ofFile((bytes) => bytes.slice(0, -1)) },
  { name: 'zero-length file', damage: ofFile(() => new Uint8Array()) },
  { name: 'NUL-filled file', damage: ofFile((bytes) => new Uint8Array(bytes.length)) },
  { name: 'file removed', damage: ofFile(() => null) },
  { name: 'trailing bytes', damage: ofFile((bytes) => Uint8Array.of(...bytes, 1, 2, 3)) },
  { name: 'misdirected write', damage: ofFile((_bytes, other) => other) },
  {
    name: 'files swapped',
    damage: ({ machine, path, other }, disks) => {
      const [a, b] = [fileAt(disks[machine], path), fileAt(disks[machine], other)]
      if (a === undefined || b === undefined || equal(a, b)) return undefined
      return replaced(replaced(disks[machine], path, b), other, a)
    },
  },
  {
    name: 'file duplicated',
    damage: ({ machine, path }, disks) => {
      const bytes = fileAt(disks[machine], path)
      // Under the name of the next serial, generation or incarnation, where it has one.
      const next = path.replace(
        /(\d)(\D*)$/,
        (_all, digit: string, rest: string) => `${String((Number(digit) + 1) % 10)}${rest}`,
      )
      return bytes === undefined || disks[machine].has(next) ? undefined : replaced(disks[machine], next, bytes)
    },
  },
  {
    name: 'file rolled back',
    damage: ({ machine, path }, disks, earlier) => {
      const [now, before] = [fileAt(disks[machine], path), fileAt(earlier[machine], path)]
      return now === undefined || before === undefined || equal(now, before)
        ? undefined
        : replaced(disks[machine], path, before)
    },
  },
  { name: 'disk rolled back', wholeOf: ['host', 'kms'], damage: ({ machine }, _disks, earlier) => earlier[machine] },
  { name: 'disk lost', wholeOf: ['host', 'kms'], damage: () => new Map() },
]
