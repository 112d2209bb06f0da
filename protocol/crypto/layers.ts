import { parseHeader, type Header } from '../age-header.js'
import { copyBytes, equalPublicBytes, type Bytes } from '../bytes.js'
import { encodeContext, type EnvelopeContext } from '../context.js'
import { isKeyriseError, KeyriseError } from '../errors.js'
import { LAYER_COUNT_MAX } from '../limits.js'
import {
  checkContext,
  openBehind,
  sealBehind,
  sealHeader,
  type CheckOptions,
  type OpenedEnvelope,
  type SealOptions,
  unwrapHeader,
} from './envelope.js'
import { claimedLayer, layerStanza, type LayerPlace } from './layer-stanza.js'
import type { Origin } from './origin.js'
import type { Identity, Recipient } from './recipients.js'

/**
 * Layers and mirrors (M10, M11): a file within a file, which only a key of every layer opens; and copies, any of which will do.
 * Layout: docs/envelope.md §5.
 */

/** Recipients of each layer, the innermost first; any one of a layer opens it. */
export type Layers = readonly (readonly Recipient[])[]

export interface SealLayersOptions extends Omit<SealOptions, 'recipients'> {
  /** One at least. A passphrase is no layer of several: it stands alone in its file. */
  readonly layers: Layers
}

/**
 * Seals `plaintext` under the first layer, that file under the second, and so on. Context and origin tags stand in each.
 * @throws {KeyriseError} as `sealEnvelope`; ERR_HEADER_LIMIT: too many layers.
 */
export const sealLayers = (plaintext: Uint8Array, { layers, ...options }: SealLayersOptions): Bytes => {
  if (layers.length === 0) throw new TypeError('An envelope needs a layer')
  if (layers.length > LAYER_COUNT_MAX) throw new KeyriseError('ERR_HEADER_LIMIT', { detail: 'layer count' })
  let file = plaintext
  layers.forEach((recipients, position) => {
    const place = layers.length === 1 ? [] : [layerStanza({ index: position + 1, count: layers.length })]
    file = sealBehind(sealHeader({ ...options, recipients }, place), file, options.random)
  })
  return copyBytes(file)
}

export interface OpenLayersOptions extends CheckOptions {
  /** Of all layers, in any order. */
  readonly identities: readonly Identity[]
}

/** The error of a layer, which says which layer it was. */
const ofLayer = (error: unknown, { index, count }: LayerPlace): unknown => {
  if (!isKeyriseError(error) || count === 1) return error
  const layer = `layer ${String(index)} of ${String(count)}`
  return new KeyriseError(error.code, { detail: error.detail === undefined ? layer : `${layer}, ${error.detail}` })
}

const sameContext = (a: EnvelopeContext | undefined, b: EnvelopeContext | undefined): boolean =>
  a === undefined || b === undefined ? a === b : equalPublicBytes(encodeContext(a), encodeContext(b))

/**
 * Opens every layer, the outermost first, each checked as `openEnvelope` checks. A file that lost an outer layer is refused, as
 * is one whose layers differ in context.
 * @throws {KeyriseError} as `openEnvelope`, with the layer in `detail`: ERR_IDENTITY_MISMATCH names the one whose key is missing.
 */
export const openLayers = (envelope: Uint8Array, options: OpenLayersOptions): OpenedEnvelope => {
  let file = envelope
  let outer: OpenedLayer | undefined
  for (;;) {
    const header = parseHeader(file)
    const place = claimedLayer(header)
    try {
      const opened = openLayer(file, { header, place }, outer, options)
      if (place.index === 1) return { plaintext: opened.plaintext, context: opened.context }
      outer = opened
      file = opened.plaintext
    } catch (error) {
      throw ofLayer(error, place)
    }
  }
}

interface OpenedLayer extends OpenedEnvelope {
  readonly place: LayerPlace
}

/** One of them. Everything but the payload is checked before that is opened. @throws {KeyriseError} as `openLayers`. */
const openLayer = (
  file: Uint8Array,
  { header, place }: { readonly header: Header; readonly place: LayerPlace },
  outer: OpenedLayer | undefined,
  options: OpenLayersOptions,
): OpenedLayer => {
  using fileKey = unwrapHeader(header, options.identities)
  const { count } = (outer ?? { place }).place
  if (place.count !== count || place.index !== (outer === undefined ? count : outer.place.index - 1))
    throw new KeyriseError('ERR_HEADER_MALFORMED', { detail: 'another layer is missing' })
  const context = checkContext(header, fileKey, options)
  if (outer !== undefined && !sameContext(outer.context, context)) throw new KeyriseError('ERR_CONTEXT_MISMATCH')
  return { plaintext: openBehind(file, header, fileKey), context, place }
}

/** One more copy: under other keys, perhaps for another KMS. */
export interface Copy {
  readonly layers: Layers
  /** Where they differ from the first copy’s. */
  readonly originKeys?: readonly Origin[]
}

export interface SealCopiesOptions extends SealLayersOptions {
  readonly copies?: readonly Copy[]
}

/**
 * Seals `plaintext` to `layers`, and again for each of `copies`: files of their own, with file keys of their own. The caller
 * puts each where it fails apart from the others.
 * @throws {KeyriseError} as `sealLayers`.
 */
export const sealCopies = (plaintext: Uint8Array, { copies = [], ...first }: SealCopiesOptions): Bytes[] =>
  [first, ...copies.map((copy) => ({ ...first, ...copy }))].map((options) => sealLayers(plaintext, options))

/**
 * The first of `copies` that opens; one that is missing is undefined.
 * @throws {KeyriseError} why the first copy that there is did not open, with the others’ reasons in `detail`;
 * ERR_ENVELOPE_INVALID: there is none.
 */
export const openCopies = (
  copies: Iterable<Uint8Array | undefined>,
  options: OpenLayersOptions,
): OpenedEnvelope & { readonly copy: number } => {
  const failures: { readonly copy: number; readonly error: KeyriseError }[] = []
  let copy = 0
  for (const file of copies) {
    copy++
    if (file === undefined) continue
    try {
      return { ...openLayers(file, options), copy: copy - 1 }
    } catch (error) {
      if (!isKeyriseError(error)) throw error
      failures.push({ copy, error })
    }
  }
  const detail = failures.map((each) => `copy ${String(each.copy)}: ${each.error.message}`).join('; ')
  throw new KeyriseError(failures[0]?.error.code ?? 'ERR_ENVELOPE_INVALID', {
    detail: detail === '' ? 'no copy' : detail,
  })
}
