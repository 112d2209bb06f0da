import type { Store } from '../protocol/ports.js'
import { MachineStopped } from './memory-file-system.js'

/** How a KMS reaches a store that is not its own. */
export interface Reach {
  /** The store as it is now: the host may have started anew. */
  readonly store: () => Store
  /** Whether the KMS still runs that this store was given to. */
  readonly isOn: () => boolean
  /** Told of each call as it begins. */
  readonly onCall: (name: string) => void
}

/** A store of another machine: what a KMS asks of it that is gone never happens. */
export const reachedStore = ({ store, isOn, onCall }: Reach): Store => {
  const ask = <T>(name: string, work: (store: Store) => Promise<T>): Promise<T> => {
    if (!isOn()) return Promise.reject(new MachineStopped())
    onCall(name)
    return work(store())
  }
  return {
    put: (name, bytes) => ask(`put ${name}`, (to) => to.put(name, bytes)),
    get: (name) => ask(`get ${name}`, (from) => from.get(name)),
    read: (name, offset, sizeBytes) => ask(`read ${name}`, (from) => from.read(name, offset, sizeBytes)),
    list: (prefix) => ask('list', (from) => from.list(prefix)),
    delete: (name) => ask(`delete ${name}`, (from) => from.delete(name)),
  }
}
