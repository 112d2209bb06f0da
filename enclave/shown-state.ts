import type { Secret } from '../protocol/crypto/secret.js'
import { verifyEd25519 } from '../protocol/crypto/keys.js'
import { encodeAcknowledgement, isAhead, type Acknowledged } from '../protocol/statements.js'
import { newbornState } from './birth.js'
import { copiesOf, type Parts } from './copies.js'
import type { EpochState } from './epoch-file.js'
import type { FlowKeys } from './flow-keys.js'
import { byAge, parseObjectName, storeName, type ObjectName } from './object-names.js'
import { openRoot, type FlowPorts } from './root.js'
import { isNamed, openSighting, sightInCopies, stateOfAuthentic, type Authentic } from './survey.js'

/** The newest state that a store shows, whatever the ledger says of it. The caller disposes of keys and plaintext. */
export interface ShownState {
  readonly keys: FlowKeys
  readonly state: EpochState
  /** Of the instance that wrote it. */
  readonly incarnation: number
  /** The epoch file; undefined where only the root opens. */
  readonly epoch: Authentic | undefined
  readonly plaintext: Secret | undefined
  /** The state's own object, as the store holds it. */
  readonly parts: Parts
}

/** How many roots are asked of the KMS: a flow has one, and a few from births that crashes cut short. */
const ROOT_COUNT_MAX = 16

/**
 * Looks at all of a flow's epochs, the newest first, one at a time.
 * @returns the first that opens under the flow's own keys and stands under its own name; undefined where none does.
 * @throws {KeyriseError} ERR_STORE_*, ERR_KMS_*: nobody can say now.
 */
export const findShownState = async (
  ports: FlowPorts,
  names: readonly ObjectName[],
): Promise<ShownState | undefined> => {
  const roots = new OpenedRoots(ports)
  let shown: ShownState | undefined
  try {
    for (const name of names.filter(({ kind }) => kind !== 'direct').sort(byAge)) {
      shown = name.kind === 'root' ? await roots.newborn(name) : await openEpoch(ports, roots, name)
      if (shown !== undefined) return shown
    }
    return undefined
  } finally {
    roots.disposeAllBut(shown?.keys)
  }
}

const openEpoch = async (ports: FlowPorts, roots: OpenedRoots, name: ObjectName): Promise<ShownState | undefined> => {
  // In all copies: what is the newest in one may be damaged in another.
  const { seen } = await sightInCopies(await copiesOf(ports.store), ports.identity.flow, [name], () => false)
  for (const sighting of seen) {
    const root = parseObjectName(sighting.claimed.name)
    const keys = root?.kind === 'root' ? (await roots.open(root))?.keys : undefined
    const epoch = keys && openSighting(keys, sighting)
    if (keys === undefined || epoch === undefined) continue
    const { incarnation, plaintext } = epoch
    const parts: Parts = [[storeName(ports.identity.flow, name), sighting.envelope]]
    if (isNamed(name, epoch)) return { keys, state: stateOfAuthentic(epoch), incarnation, epoch, plaintext, parts }
    plaintext[Symbol.dispose]()
  }
  return undefined
}

/** Each root is asked of the KMS once. */
class OpenedRoots {
  readonly #ports: FlowPorts
  readonly #opened = new Map<number, Awaited<ReturnType<typeof openRoot>>>()

  constructor(ports: FlowPorts) {
    this.#ports = ports
  }

  /** By incarnation, which is all of a root's name. */
  async open(name: ObjectName): ReturnType<typeof openRoot> {
    if (!this.#opened.has(name.incarnation) && this.#opened.size < ROOT_COUNT_MAX)
      this.#opened.set(name.incarnation, await openRoot(this.#ports, name))
    return this.#opened.get(name.incarnation)
  }

  async newborn(name: ObjectName): Promise<ShownState | undefined> {
    const root = await this.open(name)
    if (root === undefined) return undefined
    const { keys, object, parts } = root
    const { incarnation } = name
    return { keys, state: newbornState(object), incarnation, epoch: undefined, plaintext: undefined, parts }
  }

  disposeAllBut(kept: FlowKeys | undefined): void {
    for (const root of this.#opened.values()) if (root?.keys !== kept) root?.keys[Symbol.dispose]()
  }
}

/**
 * What the KMS had acknowledged when `epoch` was written: its parent, to the instance that wrote it.
 * @returns undefined where that is nothing that the ledger, as it is now, could not have come from.
 */
export const acknowledgedAhead = (
  { identity, kmsIdentity }: Pick<FlowPorts, 'identity' | 'kmsIdentity'>,
  { index, incarnation }: Pick<Authentic, 'index' | 'incarnation'>,
  ledger: Acknowledged,
): Acknowledged | undefined => {
  const acknowledged = { head: index.parent, incarnation }
  if (!isAhead(acknowledged, ledger)) return undefined
  // An instance keeps no acknowledgement that it has not verified; that it did is verified here once more, where it accuses.
  const statement = encodeAcknowledgement(identity.flow, acknowledged)
  return verifyEd25519(kmsIdentity, statement, index.acknowledgement) ? acknowledged : undefined
}
