import { SeededRandom } from '../../faults/seeded-random.js'
import { armorReader, decodeArmor, encodeArmor, isArmored } from '../../protocol/age-armor.js'
import { allocate, concatBytes, copyBytes, equalPublicBytes, type Bytes } from '../../protocol/bytes.js'
import { envelopeOpener } from '../../protocol/crypto/envelope-stream.js'
import { sealEnvelope } from '../../protocol/crypto/envelope.js'
import { hybridRecipient } from '../../protocol/crypto/hybrid.js'
import { openLayers, sealLayers } from '../../protocol/crypto/layers.js'
import { nodeRandom } from '../../protocol/crypto/primitives.js'
import { scryptRecipient, subKeyRecipient, x25519Recipient, type Recipient } from '../../protocol/crypto/recipients.js'
import { sshRsaRecipient } from '../../protocol/crypto/ssh-rsa.js'
import { isKeyriseError, outsideCode } from '../../protocol/errors.js'
import { VECTOR_CONTEXT } from '../vectors/makers.js'
import {
  identityOf,
  KEYS,
  PASSPHRASE,
  publicKeys,
  rsaKey,
  secretOf,
  SUB_KEY_STEP,
  type IdentityName,
} from '../vectors/keys.js'
import { collect, flipBit, fromText, pushAll } from './fixtures.js'

/** Envelopes, what damage and hostility make of them, and what must come of that: a refusal, with a code, at once. */

const plaintext = fromText('gradient of round 3')
const origin = { authority: KEYS.authority, key: secretOf(KEYS['origin-key']) }
const sealOptions = { context: VECTOR_CONTEXT, originKeys: [origin], random: nodeRandom }

const a = x25519Recipient(publicKeys.a)
const subKey = subKeyRecipient(SUB_KEY_STEP, secretOf(KEYS['sub-key']))
const sealTo = (...recipients: Recipient[]): Bytes => sealEnvelope(plaintext, { ...sealOptions, recipients })

/** One of each kind, but for the identities’ own, sealed anew in each run. */
const CORPUS: readonly { readonly file: Bytes; readonly identities: readonly IdentityName[]; readonly bare?: true }[] =
  [
    { file: sealTo(a), identities: ['x25519-a'] },
    { file: sealTo(subKey, a), identities: ['sub-key'] },
    { file: sealTo(hybridRecipient(publicKeys.hybrid)), identities: ['hybrid'] },
    { file: sealTo(sshRsaRecipient(rsaKey)), identities: ['ssh-rsa'] },
    { file: encodeArmor(sealTo(a)), identities: ['x25519-a'] },
    { file: sealLayers(plaintext, { ...sealOptions, layers: [[subKey], [a]] }), identities: ['sub-key', 'x25519-a'] },
    {
      file: sealEnvelope(plaintext, {
        recipients: [scryptRecipient(secretOf(fromText(PASSPHRASE)), 2)],
        random: nodeRandom,
      }),
      identities: ['passphrase'],
      bare: true,
    },
  ]
const identities = new Map(CORPUS.flatMap((each) => each.identities).map((name) => [name, identityOf(name)]))

export interface Mutant {
  /** Which file of the corpus it is opened as. */
  readonly index: number
  readonly file: Bytes
  readonly how: string
}

/** Every flipped bit and every truncation of every file: the `step`th of them, from the first. */
export function* everyFlipAndCut(step = 1): Generator<Mutant, void, undefined> {
  let count = 0
  for (const [index, { file }] of CORPUS.entries()) {
    for (let bit = 0; bit < file.length * 8; bit++)
      if (count++ % step === 0) yield { index, file: flipBit(file, bit), how: `bit ${String(bit)}` }
    for (let size = 0; size < file.length; size++)
      if (count++ % step === 0) yield { index, file: copyBytes(file.subarray(0, size)), how: `cut at ${String(size)}` }
  }
}

type Draw = (limit: number) => number

/** @returns from 0 up to `limit`, which is excluded. */
const drawFrom = (random: SeededRandom): Draw => {
  const bytes = allocate(4)
  return (limit) => new DataView(random.fill(bytes).buffer).getUint32(0) % Math.max(1, limit)
}

/** Two places in `file`, in order. */
const range = (file: Uint8Array, draw: Draw): [start: number, end: number] => {
  const start = draw(file.length + 1)
  return [start, start + draw(Math.min(file.length - start, 1 + draw(file.length)) + 1)]
}

const CHANGES: Readonly<Record<string, (file: Bytes, draw: Draw, random: SeededRandom) => Bytes>> = {
  duplication(file, draw) {
    const [start, end] = range(file, draw)
    return concatBytes(file.subarray(0, end), file.subarray(start))
  },
  deletion(file, draw) {
    const [start, end] = range(file, draw)
    return concatBytes(file.subarray(0, start), file.subarray(end))
  },
  splice(file, draw) {
    const other = (CORPUS[draw(CORPUS.length)] as { file: Bytes }).file
    return concatBytes(file.subarray(0, draw(file.length + 1)), other.subarray(draw(other.length + 1)))
  },
  swap(file, draw) {
    const [start, end] = range(file, draw)
    const middle = start + draw(end - start + 1)
    return concatBytes(
      file.subarray(0, start),
      file.subarray(middle, end),
      file.subarray(start, middle),
      file.subarray(end),
    )
  },
  noise(file, draw, random) {
    const [start, end] = range(file, draw)
    const changed = copyBytes(file)
    random.fill(changed.subarray(start, end))
    return changed
  },
  zeroes(file, draw) {
    const [start, end] = range(file, draw)
    return copyBytes(file).fill(0, start, end)
  },
  insertion(file, draw, random) {
    const start = draw(file.length + 1)
    return concatBytes(file.subarray(0, start), random.fill(allocate(1 + draw(100))), file.subarray(start))
  },
  byte(file, draw) {
    const changed = copyBytes(file)
    const place = draw(file.length)
    changed[place] = ' \n\r\t-=>/+.09AZaz~\x7f\x00'.charCodeAt(draw(19))
    return changed
  },
}
const CHANGE_NAMES = Object.keys(CHANGES)

/** `count` mutants of one to three changes each, the same for the same seed but for the corpus’s keys. */
export function* anyChanges(seed: string, count: number): Generator<Mutant, void, undefined> {
  for (let number = 0; number < count; number++) {
    const random = new SeededRandom(`${seed}/${String(number)}`)
    const draw = drawFrom(random)
    const index = draw(CORPUS.length)
    let { file } = CORPUS[index] as { file: Bytes }
    const names: string[] = []
    for (let left = 1 + draw(3); left > 0; left--) {
      const name = CHANGE_NAMES[draw(CHANGE_NAMES.length)] as string
      file = CHANGES[name]?.(file, draw, random) ?? file
      names.push(name)
    }
    yield { index, file, how: `${names.join(', ')} (seed ${seed}, ${String(number)})` }
  }
}

const binaryOf = (file: Uint8Array): Bytes | undefined => {
  try {
    return isArmored(file) ? decodeArmor(file) : copyBytes(file)
  } catch {
    return undefined
  }
}
const ORIGINALS = CORPUS.map(({ file }) => binaryOf(file) as Bytes)

/** True where nothing but white space around an armor was changed, so that it is the same file. */
const isOriginal = (file: Bytes): boolean => {
  const binary = binaryOf(file)
  return binary !== undefined && ORIGINALS.some((original) => equalPublicBytes(original, binary))
}

/** Of the processor, so that a busy machine changes no verdict. */
const TIME_US_MAX = 1_000_000

/** What is wrong with how `work` ended: anything but one of the codes that a reader has for a bad file, soon. */
const complaint = (work: () => void): string | undefined => {
  const start = process.cpuUsage()
  try {
    work()
    return 'was opened'
  } catch (error) {
    if (!isKeyriseError(error)) return `failed with ${String(error)}`
    const code = outsideCode(error.code)
    if (code !== 'ERR_ENVELOPE_INVALID' && code !== 'ERR_CONTEXT_MISMATCH') return `failed with ${code}`
    const { user, system } = process.cpuUsage(start)
    return user + system > TIME_US_MAX ? `took ${String(user + system)} µs` : undefined
  }
}

/** What is wrong with how `mutant` was taken, whole and in pieces; undefined where it was refused as it must be. */
export const judge = ({ index, file, how }: Mutant): string | undefined => {
  if (isOriginal(file)) return undefined
  const { identities: names, bare } = CORPUS[index] as (typeof CORPUS)[number]
  const options = {
    identities: names.map((name) => identities.get(name) ?? identityOf(name)),
    ...(bare === true ? {} : { origin, expect: VECTOR_CONTEXT }),
  }
  const armored = isArmored((CORPUS[index] as { file: Bytes }).file)
  const whole = complaint(() => {
    openLayers(armored ? decodeArmor(file) : file, options)
  })
  if (whole !== undefined) return `${how}: ${whole}`
  const streamed = complaint(() => {
    const opener = envelopeOpener(options, collect().sink)
    pushAll(armored ? armorReader(opener) : opener, file, () => 700)
  })
  return streamed === undefined ? undefined : `${how}, streamed: ${streamed}`
}
