import { parseHeader } from '../protocol/age-header.js'
import { equalPublicBytes, type Bytes } from '../protocol/bytes.js'
import type { EnvelopeContext } from '../protocol/context.js'
import { claimedContext, envelopeDigest } from '../protocol/crypto/envelope.js'
import { Secret } from '../protocol/crypto/secret.js'
import { isKeyriseError, KeyriseError } from '../protocol/errors.js'
import type { FlowId } from '../protocol/names.js'
import type { Store } from '../protocol/ports.js'
import { equalHeads, type Head } from '../protocol/session.js'
import type { Copies } from './copies.js'
import { stateOf, unpackIndex, type EpochIndex, type EpochState } from './epoch-file.js'
import type { FlowKeys } from './flow-keys.js'
import type { ObjectName } from './object-names.js'
import { orUndefined } from './root.js'
import { getEnvelopes } from './stored-objects.js'

/** A root or an epoch file that the store shows. Its digest is a fact; its context is a claim until it was opened. */
export interface Sighting {
  readonly name: ObjectName
  readonly envelope: Uint8Array
  readonly digest: Bytes
  readonly claimed: EnvelopeContext
}

/** An epoch file that opened under the flow's own keys: an instance of this flow and image made it. */
export interface Authentic {
  readonly sighting: Sighting
  readonly epoch: number
  readonly incarnation: number
  readonly index: EpochIndex
  readonly plaintext: Secret
}

/** Looks at each of `names`, at each generation of a root; what is missing, or no envelope with a context, isn't seen. */
const sight = async (store: Store, flow: FlowId, names: readonly ObjectName[]): Promise<Sighting[]> => {
  const seen = await Promise.all(
    names.map(async (name) =>
      [...(await getEnvelopes(store, flow, name))].flatMap(
        (envelope) =>
          orUndefined(() => {
            const claimed = claimedContext(parseHeader(envelope))
            return claimed && { name, envelope, digest: envelopeDigest(envelope), claimed }
          }) ?? [],
      ),
    ),
  )
  return seen.flat()
}

/**
 * The same in one copy after the other, until what was seen is enough; `copyCount` copies were looked at.
 * @throws {KeyriseError} ERR_STORE_*: it is not enough, and a copy that does not answer may have more.
 */
export const sightInCopies = async (
  copies: Copies,
  flow: FlowId,
  names: readonly ObjectName[],
  isEnough: (seen: readonly Sighting[]) => boolean,
): Promise<{ seen: Sighting[]; copyCount: number }> => {
  const seen: Sighting[] = []
  let failure: KeyriseError | undefined
  for (const [index, copy] of copies.entries()) {
    try {
      seen.push(...(await sight(copy, flow, names)))
    } catch (error) {
      if (!isKeyriseError(error)) throw error
      failure ??= error
    }
    if (isEnough(seen)) return { seen, copyCount: index + 1 }
  }
  if (failure !== undefined) throw failure
  return { seen, copyCount: copies.length }
}

/** Opens an epoch file; undefined when it is damaged, forged or another's. */
export const openSighting = (keys: FlowKeys, sighting: Sighting): Authentic | undefined =>
  orUndefined(() => {
    const { plaintext: bytes, context } = keys.openEpoch(sighting.envelope)
    const plaintext = Secret.own(bytes)
    try {
      const { epoch, incarnation } = context
      return { sighting, epoch, incarnation, index: plaintext.expose(unpackIndex), plaintext }
    } catch (error) {
      plaintext[Symbol.dispose]()
      throw error
    }
  })

export const stateOfAuthentic = ({ sighting: { name, digest }, index }: Authentic): EpochState =>
  stateOf(index, { name, digest })

/** The ledger's digest covers the context, so under the head's own name this is the head. */
export const isHead = ({ name, digest, claimed }: Sighting, head: Head): boolean =>
  equalPublicBytes(digest, head.digest) && isNamed(name, claimed) && name.epoch === head.epoch

/**
 * Splits what was opened, given the ledger's head and its newest incarnation.
 * @returns the head + 1 to adopt, if there is one: docs/adr/0003-commit-order.md says why only the newest incarnation's.
 * @throws {KeyriseError} ERR_FORK: something that this flow's ledger never led to.
 */
export const chooseAdoptable = (
  newer: readonly Authentic[],
  head: Head,
  incarnation: number,
): Authentic | undefined => {
  for (const epoch of newer) {
    const follows = epoch.epoch === head.epoch + 1 && equalHeads(epoch.index.parent, head)
    if (epoch.epoch > head.epoch && !follows)
      throw fork(`epoch ${epoch.epoch} does not follow the ledger’s epoch ${head.epoch}`)
    if (epoch.incarnation > incarnation) throw fork(`incarnation ${epoch.incarnation} was never issued`)
  }
  return newer.find((claim) => {
    const newest = claim.epoch === head.epoch + 1 && claim.incarnation === incarnation
    return newest && isNamed(claim.sighting.name, claim)
  })
}

/** True when an object stands under its own name, so that a state that lists it names it rightly. */
export const isNamed = (name: ObjectName, { epoch, incarnation }: { epoch: number; incarnation: number }): boolean =>
  name.epoch === epoch && name.incarnation === incarnation

export const fork = (detail: string): KeyriseError => new KeyriseError('ERR_FORK', { detail })
