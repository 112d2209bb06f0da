import type { KmsLink, Store } from '../protocol/ports.js'

/** One call of an interface that reaches the untrusted world. */
export interface WorldCall {
  readonly operation: 'store-put' | 'store-get' | 'store-read' | 'store-list' | 'store-delete' | 'kms-exchange'
  /** The name, or the prefix, in the store; empty for the KMS, whose frames say nothing. */
  readonly subject: string
  /** What the call carries out. */
  readonly bytes?: Uint8Array
}

/** Does `work`, the call itself, with something before, after or instead of it. */
export type Around = <T>(call: WorldCall, work: () => Promise<T>) => Promise<T>

/** `store`, with every call passed through `around`. */
export const aroundStore = (store: Store, around: Around): Store => ({
  ...(store.copies === undefined
    ? {}
    : { copies: async () => ((await store.copies?.()) ?? []).map((copy) => aroundStore(copy, around)) }),
  put: (name, bytes) => around({ operation: 'store-put', subject: name, bytes }, () => store.put(name, bytes)),
  get: (name) => around({ operation: 'store-get', subject: name }, () => store.get(name)),
  read: (name, offset, sizeBytes) =>
    around({ operation: 'store-read', subject: name }, () => store.read(name, offset, sizeBytes)),
  list: (prefix) => around({ operation: 'store-list', subject: prefix }, () => store.list(prefix)),
  delete: (name) => around({ operation: 'store-delete', subject: name }, () => store.delete(name)),
})

/** `kms`, with every exchange passed through `around`. */
export const aroundKms = (kms: KmsLink, around: Around): KmsLink => ({
  identity: kms.identity,
  exchange: (frame) => around({ operation: 'kms-exchange', subject: '', bytes: frame }, () => kms.exchange(frame)),
  close: () => kms.close(),
  [Symbol.asyncDispose]: () => kms.close(),
})
