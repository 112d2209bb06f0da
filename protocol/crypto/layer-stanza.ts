import type { Header, Stanza } from '../age-header.js'
import { allocate } from '../bytes.js'
import { KeyriseError } from '../errors.js'
import { LAYER_COUNT_MAX } from '../limits.js'

/**
 * The `keyrise/layer` stanza: which layer of how many a file is, counted from the inside. A file without one is all there is.
 * It tells a layer that is missing from data that happens to be an age file. Layout: docs/envelope.md §5.
 */

export const LAYER_TYPE = 'keyrise/layer'
const NUMBER = /^[1-9]$/

export interface LayerPlace {
  /** From 1, the innermost. */
  readonly index: number
  readonly count: number
}

const malformed = (detail: string): never => {
  throw new KeyriseError('ERR_HEADER_MALFORMED', { detail })
}

/** @param place - `count` is two at least. */
export const layerStanza = ({ index, count }: LayerPlace): Stanza => ({
  args: [LAYER_TYPE, String(index), String(count)],
  body: allocate(0),
})

const decodeNumber = (claimed: string | undefined): number =>
  NUMBER.test(claimed ?? '') ? Number(claimed) : malformed('the number of a layer')

/** The place that the header claims. @throws {KeyriseError} ERR_HEADER_MALFORMED. */
export const claimedLayer = ({ stanzas }: Header): LayerPlace => {
  const [first, ...others] = stanzas.filter(({ args }) => args[0] === LAYER_TYPE)
  if (first === undefined) return { index: 1, count: 1 }
  const [, indexText, countText, ...rest] = first.args
  if (others.length > 0 || rest.length > 0 || first.body.length > 0) return malformed('a layer')
  const [index, count] = [decodeNumber(indexText), decodeNumber(countText)]
  return count >= 2 && count <= LAYER_COUNT_MAX && index <= count
    ? { index, count }
    : malformed('the number of a layer')
}
