import { inflateSync } from 'node:zlib'
import { bech32 } from '@scure/base'
import test from 'ava'
import * as cctv from 'cctv-age'
import { armorReader, decodeArmor } from '../../protocol/age-armor.js'
import type { ByteSink } from '../../protocol/age-stream.js'
import { envelopeOpener } from '../../protocol/crypto/envelope-stream.js'
import { openEnvelope } from '../../protocol/crypto/envelope.js'
import { hybridIdentity } from '../../protocol/crypto/hybrid.js'
import { sha256 } from '../../protocol/crypto/primitives.js'
import { scryptIdentity, x25519Identity, type Identity } from '../../protocol/crypto/recipients.js'
import type { ErrorCode } from '../../protocol/errors.js'
import { codeOf, collect, fromText, pushAll, secretOf } from './fixtures.js'

/** C2SP’s vectors for age (CCTV): each file opens or is refused as it must, for the reason it must, and no other. */

const vectors: Readonly<Record<string, Uint8Array>> = { ...cctv }

const CLASSES: Readonly<Record<string, readonly (ErrorCode | undefined)[]>> = {
  success: [undefined],
  'armor failure': ['ERR_ARMOR_INVALID'],
  'header failure': ['ERR_HEADER_MALFORMED', 'ERR_HEADER_LIMIT', 'ERR_WORK_FACTOR'],
  'no match': ['ERR_IDENTITY_MISMATCH'],
  'HMAC failure': ['ERR_HEADER_MAC'],
  'payload failure': ['ERR_PAYLOAD_INVALID', 'ERR_PAYLOAD_TRUNCATED'],
}

interface Vector {
  readonly codes: readonly (ErrorCode | undefined)[]
  readonly file: Uint8Array
  readonly isArmored: boolean
  /** SHA-256 of everything that may be released, even where the file is refused after all. */
  readonly releasedDigest: string
  readonly identities: readonly Identity[]
}

const readKey = (text: string): Identity => {
  const { prefix, bytes } = bech32.decodeToBytes(text)
  return prefix.toUpperCase() === 'AGE-SECRET-KEY-PQ-'
    ? hybridIdentity(secretOf(bytes))
    : x25519Identity(secretOf(bytes))
}

const readVector = (bytes: Uint8Array): Vector => {
  const all = Buffer.from(bytes)
  const end = all.indexOf('\n\n')
  const fields = all
    .subarray(0, end)
    .toString()
    .split('\n')
    .map((line) => line.split(': ') as [string, string])
  const field = (wanted: string): string[] => fields.filter(([name]) => name === wanted).map(([, value]) => value)
  const body = all.subarray(end + 2)
  return {
    codes: CLASSES[field('expect')[0] ?? ''] ?? [],
    file: field('compressed')[0] === 'zlib' ? inflateSync(body) : body,
    isArmored: field('armored')[0] === 'yes',
    releasedDigest: field('payload')[0] ?? '',
    identities: [
      ...field('identity').map(readKey),
      ...field('passphrase').map((passphrase) => scryptIdentity(secretOf(fromText(passphrase)))),
    ],
  }
}

const digestOf = (bytes: Uint8Array): string => Buffer.from(sha256(bytes)).toString('hex')
const names = Object.keys(vectors)

test('there are 143 vectors, and each says what must happen', (t) => {
  t.is(names.length, 143)
  for (const bytes of Object.values(vectors)) t.true(readVector(bytes).codes.length > 0)
})

for (const name of names) {
  const { codes, file, isArmored, releasedDigest, identities } = readVector(vectors[name] ?? new Uint8Array())

  test(`${name}: whole, with its identities in either order`, (t) => {
    for (const each of [identities, identities.toReversed()]) {
      let opened: Uint8Array | undefined
      const code = codeOf(() => {
        const envelope = isArmored ? decodeArmor(file) : file
        opened = openEnvelope(envelope, { identities: each }).plaintext
      })
      t.true(codes.includes(code), `${String(code)} is none of ${codes.join()}`)
      if (opened !== undefined) t.is(digestOf(opened), releasedDigest)
    }
  })

  const streamed = (sizes: () => number): { code: ErrorCode | undefined; released: Uint8Array; isEnded: boolean } => {
    const { sink, taken, isEnded } = collect()
    const opener = envelopeOpener({ identities }, sink)
    const stage: ByteSink = isArmored ? armorReader(opener) : opener
    const code = codeOf(() => {
      pushAll(stage, file, sizes)
    })
    return { code, released: taken(), isEnded: isEnded() }
  }

  for (const [how, sizes] of [
    ['byte by byte', () => 1],
    ['in pieces of any size', () => Math.ceil(Math.random() ** 4 * 200_000)],
    ['at once', () => file.length],
  ] as const) {
    test(`${name}: streamed ${how}`, (t) => {
      const { code, released, isEnded } = streamed(sizes)
      t.true(codes.includes(code), `${String(code)} is none of ${codes.join()}`)
      if (releasedDigest !== '') t.is(digestOf(released), releasedDigest)
      t.is(isEnded, code === undefined)
    })
  }
}
