import { SeededRandom } from '../../faults/seeded-random.js'
import type { Stanza } from '../../protocol/age-header.js'
import { allocate, asciiBytes, type Bytes, copyBytes, toHex } from '../../protocol/bytes.js'
import type { EnvelopeContext } from '../../protocol/context.js'
import { envelopeDigest } from '../../protocol/crypto/envelope.js'
import { layerStanza } from '../../protocol/crypto/layer-stanza.js'
import { contextStanza } from '../../protocol/crypto/origin.js'
import { scryptRecipient, subKeyRecipient } from '../../protocol/crypto/recipients.js'
import type { ErrorCode } from '../../protocol/errors.js'
import { parseFlowId } from '../../protocol/names.js'
import { type IdentityName, KEYS, PASSPHRASE, secretOf, SUB_KEY_STEP } from './keys.js'
import { makeFile, type MakeStanza, x25519Stanza } from './stanzas.js'

/** What vectors are made of: contexts, stanzas that were changed, files whose randomness is their own. */

export interface Vector {
  readonly name: string
  /** Why it is refused; null where it opens. */
  readonly code: ErrorCode | null
  /** Base64. */
  readonly file: string
  readonly armored?: true
  readonly identities: readonly IdentityName[]
  /** The origin tag must be there and right. */
  readonly origin?: true
  /** The epoch that the context must have. */
  readonly epoch?: number
  /** SHA-256, of an accepted file’s plaintext. */
  readonly plaintext?: string
  /** SHA-256 over context and payload (§3), of an accepted file. */
  readonly digest?: string
}

export const VECTOR_CONTEXT: EnvelopeContext = {
  flow: parseFlowId('credit-2026'),
  task: parseFlowId('credit'),
  kind: 'intermediate-result',
  name: 'intermediate-result/round-3',
  epoch: 7,
  incarnation: 2,
  image: allocate(32).fill(0xa5),
}
export const VECTOR_ORIGIN = { authority: KEYS.authority, key: KEYS['origin-key'] }

export const plaintext = asciiBytes('gradient of round 3')
const base64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64')
const sha256Hex = async (bytes: Uint8Array<ArrayBuffer>): Promise<string> =>
  toHex(new Uint8Array(await crypto.subtle.digest('SHA-256', bytes)))

export const origin = { authority: KEYS.authority, key: secretOf(KEYS['origin-key']) }
export const context =
  (of: EnvelopeContext = VECTOR_CONTEXT, origins = [origin]): MakeStanza =>
  (fileKey) =>
    contextStanza(of, fileKey, origins)
export const subKey: MakeStanza = (fileKey, random) =>
  subKeyRecipient(SUB_KEY_STEP, secretOf(KEYS['sub-key'])).wrap(fileKey, random)
export const passphrase: MakeStanza = (fileKey, random) =>
  scryptRecipient(secretOf(Buffer.from(PASSPHRASE)), 10).wrap(fileKey, random)
export const changed =
  (make: MakeStanza, change: (stanza: Stanza) => Stanza): MakeStanza =>
  (fileKey, random) =>
    change(make(fileKey, random))
export const withArgument = (make: MakeStanza, index: number, argument: string): MakeStanza =>
  changed(make, ({ args: [type, ...rest], body }) => ({ args: [type, ...rest.with(index - 1, argument)], body }))
export const fixed =
  (...args: Stanza['args']): MakeStanza =>
  () => ({ args, body: allocate(0) })

export const fixedBody =
  (type: string, body: Uint8Array): MakeStanza =>
  () => ({ args: [type], body: copyBytes(body) })

/** A file named `name`, whose randomness is its own. */
export const make = (name: string, stanzas: readonly MakeStanza[], of: Uint8Array = plaintext) =>
  makeFile(stanzas, of, new SeededRandom(`keyrise/vectors/${name}`))

export type Options = Pick<Vector, 'identities'> & Partial<Pick<Vector, 'origin' | 'epoch' | 'armored'>>
export const A: Options = { identities: ['x25519-a'] }
export const CHECKED: Options = { ...A, origin: true, epoch: 7 }

export const accept = async (
  name: string,
  options: Options,
  file: Bytes,
  of: Bytes = plaintext,
  binary: Bytes = file,
): Promise<Vector> => ({
  name,
  code: null,
  ...options,
  file: base64(file),
  plaintext: await sha256Hex(of),
  digest: toHex(envelopeDigest(binary)),
})
export const refuse = (name: string, code: ErrorCode, options: Options, file: Uint8Array): Vector => ({
  name,
  code,
  ...options,
  file: base64(file),
})

export const layered = (name: string, index: number, count: number, inner: Uint8Array): Bytes =>
  make(`${name}/${String(index)}`, [x25519Stanza(), context(), () => layerStanza({ index, count })], inner).file
