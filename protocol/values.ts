import { allocate, type Bytes } from './bytes.js'
import { KeyriseError } from './errors.js'
import { MESSAGE_SIZE_BYTES_MAX, VALUE_DEPTH_MAX, VALUE_NODE_COUNT_MAX } from './limits.js'

/** What crosses a boundary: null, booleans, finite numbers, strings, Uint8Arrays, arrays and plain objects of these. */
export type Value = null | boolean | number | string | Uint8Array | readonly Value[] | { readonly [key: string]: Value }

export interface ValueLimits {
  /** Bytes in all: byte arrays as they are, strings and keys two per character. */
  readonly sizeBytesMax?: number
  readonly depthMax?: number
  readonly nodeCountMax?: number
}

/**
 * A private copy of a value from the untrusted side: what is checked and used afterwards is this copy, which nobody else
 * can reach. No accessor, iterator or `toJSON` of the claimed value runs, nothing inherited is read, and arrays are
 * counted before they are copied. `undefined` passes as the whole value ("no argument"), and as a field, which is dropped.
 * @throws {KeyriseError} ERR_SIZE_LIMIT (a cyclic value exceeds the depth), ERR_SHARED_MEMORY, ERR_VALUE_UNSUPPORTED.
 */
export const admitValue = (claimed: unknown, limits: ValueLimits = {}): unknown => new Copier(limits).whole(claimed)

/**
 * `admitValue` of a value that a structured clone has just made, on this thread, for nobody else. A Uint8Array that alone
 * covers an ArrayBuffer is taken as it is: the memory is not shared, a transfer has detached it from whoever sent it, a clone
 * was never theirs, and a buffer that is in the value twice is copied. So large payloads are not copied again.
 * @throws {KeyriseError} as `admitValue`.
 */
export const admitReceived = (claimed: unknown, limits: ValueLimits = {}): unknown =>
  new Copier(limits, { taken: new Set() }).whole(claimed)

/** `admitReceived`, and the bytes that it counted. */
export const admitItem = (claimed: unknown, limits: ValueLimits = {}): { value: unknown; sizeBytes: number } => {
  const copier = new Copier(limits, { taken: new Set() })
  return { value: copier.whole(claimed), sizeBytes: copier.sizeBytes }
}

/**
 * Smaller buffers are cloned by whoever posts them: the first ArrayBuffer that a thread gives away makes V8 compile all its loops
 * over typed arrays with one check more for each element; a training step took 1.2 times as long from then on.
 */
export const TRANSFERRED_SIZE_BYTES_MIN = 256 * 1024

/**
 * An exact copy of a value that leaves, every Uint8Array in an ArrayBuffer of its own and of its own size, large ones listed
 * for transfer: never a view into a pool with other people's bytes (security.md, finding 5).
 * @returns `sizeBytes`: what it counts against the limits.
 * @throws {KeyriseError} as `admitValue`.
 */
export const releaseValue = (
  value: unknown,
  limits: ValueLimits = {},
  shared: SharedBytes = 'refused',
): { value: unknown; transfer: ArrayBuffer[]; sizeBytes: number } => {
  const copier = new Copier(limits, { shared })
  return { value: copier.whole(value), transfer: copier.buffers, sizeBytes: copier.sizeBytes }
}

/** The getter of a built-in, taken once: later changes to the prototype, or a property of the same name, do not matter. */
const getterOf = (prototype: object, key: PropertyKey): ((target: unknown) => unknown) => {
  const get = Object.getOwnPropertyDescriptor(prototype, key)?.get
  if (get === undefined) throw new KeyriseError('ERR_VALUE_UNSUPPORTED', { detail: 'this JavaScript engine' })
  const { apply } = Reflect
  return (target): unknown => apply(get, target, [])
}

const typedArrayPrototype = Object.getPrototypeOf(Uint8Array.prototype) as object
const typedArrayTag = getterOf(typedArrayPrototype, Symbol.toStringTag)
const typedArrayBuffer = getterOf(typedArrayPrototype, 'buffer')
const typedArrayLength = getterOf(typedArrayPrototype, 'length')
const arrayBufferSize = getterOf(ArrayBuffer.prototype, 'byteLength')
/** Where the engine has such buffers: one could shrink while it is used. */
const isResizable = Object.hasOwn(ArrayBuffer.prototype, 'resizable')
  ? getterOf(ArrayBuffer.prototype, 'resizable')
  : undefined
const sharedBufferSize = getterOf(SharedArrayBuffer.prototype, 'byteLength')
const fillFrom = Uint8Array.prototype.set

/** True where `read` of an internal slot succeeds: a test of what an object is that no prototype can fake. */
const hasSlot = (read: (target: unknown) => unknown, target: unknown): boolean => {
  try {
    read(target)
    return true
  } catch {
    return false
  }
}

/** True for a Uint8Array of any kind, whatever its prototype says it is. */
export const isByteArray = (claimed: object): claimed is Uint8Array => typedArrayTag(claimed) === 'Uint8Array'

/**
 * What becomes of a Uint8Array over shared memory. Where it is refused, each is asked for its buffer, and a small one, which V8
 * keeps on its heap without a buffer, then gets one: a fifth of all that a small call takes. A reply is copied, so that its
 * sender's memory does not matter to the receiver.
 */
export type SharedBytes = 'refused' | 'copied'

/** The length of bytes that may cross. @throws {KeyriseError} ERR_SHARED_MEMORY where they lie in shared memory that is refused. */
export const sizeOfBytes = (claimed: Uint8Array, shared: SharedBytes = 'refused'): number => {
  if (shared === 'refused' && !hasSlot(arrayBufferSize, typedArrayBuffer(claimed)))
    refuseValue('ERR_SHARED_MEMORY', 'a Uint8Array over shared memory')
  return typedArrayLength(claimed) as number
}

/** What an object that is neither an array nor bytes is refused with; plain objects pass. @throws {KeyriseError} */
export const checkPlainObject = (claimed: object): void => {
  const prototype: unknown = getPrototypeOf(claimed)
  if (prototype === Object.prototype || prototype === null) return
  if (hasSlot(sharedBufferSize, claimed)) refuseValue('ERR_SHARED_MEMORY', 'a SharedArrayBuffer')
  refuseValue('ERR_VALUE_UNSUPPORTED', 'an object of a class')
}

const { getPrototypeOf, getOwnPropertyDescriptor, defineProperty, keys, hasOwn } = Object
const { isArray } = Array
const { apply } = Reflect

export const refuseValue = (
  code: 'ERR_SIZE_LIMIT' | 'ERR_SHARED_MEMORY' | 'ERR_VALUE_UNSUPPORTED',
  detail: string,
): never => {
  throw new KeyriseError(code, { detail })
}

class Copier {
  readonly buffers: ArrayBuffer[] = []
  readonly #sizeBytesMax: number
  #sizeBytesLeft: number
  #nodesLeft: number
  readonly #depthMax: number
  readonly #taken: Set<ArrayBuffer> | undefined
  readonly #shared: SharedBytes

  /** @param options.taken - where given, buffers that only this value can reach are taken over, and listed in it. */
  constructor(limits: ValueLimits, options: { readonly taken?: Set<ArrayBuffer>; readonly shared?: SharedBytes } = {}) {
    this.#taken = options.taken
    this.#shared = options.shared ?? 'refused'
    this.#sizeBytesMax = limits.sizeBytesMax ?? MESSAGE_SIZE_BYTES_MAX
    this.#sizeBytesLeft = this.#sizeBytesMax
    this.#nodesLeft = limits.nodeCountMax ?? VALUE_NODE_COUNT_MAX
    this.#depthMax = limits.depthMax ?? VALUE_DEPTH_MAX
  }

  get sizeBytes(): number {
    return this.#sizeBytesMax - this.#sizeBytesLeft
  }

  whole(claimed: unknown): unknown {
    return claimed === undefined ? undefined : this.#copy(claimed, 0)
  }

  #spend(sizeBytes: number, nodes: number): void {
    this.#sizeBytesLeft -= sizeBytes
    this.#nodesLeft -= nodes
    if (this.#sizeBytesLeft < 0) refuseValue('ERR_SIZE_LIMIT', 'bytes')
    if (this.#nodesLeft < 0) refuseValue('ERR_SIZE_LIMIT', 'elements')
  }

  #copy(claimed: unknown, depth: number): Value {
    switch (typeof claimed) {
      case 'boolean':
        this.#spend(1, 1)
        return claimed
      case 'number':
        this.#spend(8, 1)
        return Number.isFinite(claimed) ? claimed : refuseValue('ERR_VALUE_UNSUPPORTED', 'a number that is not finite')
      case 'string':
        this.#spend(2 * claimed.length, 1)
        return claimed
      case 'object':
        if (claimed !== null) return this.#copyObject(claimed, depth)
        this.#spend(1, 1)
        return null
      default:
        return refuseValue('ERR_VALUE_UNSUPPORTED', typeof claimed)
    }
  }

  #copyObject(claimed: object, depth: number): Value {
    if (depth >= this.#depthMax) refuseValue('ERR_SIZE_LIMIT', 'depth')
    if (isArray(claimed)) return this.#copyArray(claimed, depth)
    if (isByteArray(claimed)) return this.#copyBytes(claimed)
    checkPlainObject(claimed)
    return this.#copyFields(claimed, depth)
  }

  #copyBytes(claimed: Uint8Array): Bytes {
    const size = sizeOfBytes(claimed, this.#shared)
    this.#spend(size, 1)
    if (this.#taken !== undefined && isTakeable(claimed, size, this.#taken)) return claimed
    const copy = allocate(size)
    apply(fillFrom, copy, [claimed])
    if (size >= TRANSFERRED_SIZE_BYTES_MIN) this.buffers.push(copy.buffer)
    return copy
  }

  #copyArray(claimed: readonly unknown[], depth: number): Value[] {
    // Before the copy is made: an empty array of length 2³² − 1 is a few bytes on the wire.
    this.#spend(8 * claimed.length, 1)
    const copy: Value[] = []
    for (let index = 0; index < claimed.length; index++) copy.push(this.#copy(ownValue(claimed, index), depth + 1))
    return copy
  }

  #copyFields(claimed: object, depth: number): { [key: string]: Value } {
    this.#spend(8, 1)
    const copy: { [key: string]: Value } = {}
    for (const key of keys(claimed)) {
      if (key === '__proto__') refuseValue('ERR_VALUE_UNSUPPORTED', 'a field named __proto__')
      this.#spend(2 * key.length, 0)
      const claimedField = ownValue(claimed, key)
      if (claimedField === undefined) continue
      const value = this.#copy(claimedField, depth + 1)
      setField(copy, key, value)
    }
    return copy
  }
}

/** True for bytes that are all of a fixed-length ArrayBuffer which is not in `taken` yet; it is then. */
const isTakeable = (claimed: Uint8Array, size: number, taken: Set<ArrayBuffer>): claimed is Bytes => {
  const buffer = typedArrayBuffer(claimed) as ArrayBuffer
  if (getPrototypeOf(claimed) !== Uint8Array.prototype || arrayBufferSize(buffer) !== size) return false
  if (isResizable?.(buffer) === true || taken.has(buffer)) return false
  taken.add(buffer)
  return true
}

/** Defined where assignment would not do: `constructor` and `toString` are data here, whatever Object.prototype makes of them. */
export const setField = (into: { [key: string]: Value }, key: string, value: Value): void => {
  if (key in into) defineProperty(into, key, { value, writable: true, enumerable: true, configurable: true })
  else into[key] = value
}

/** An own value, undefined where there is none. @throws {KeyriseError} ERR_VALUE_UNSUPPORTED for an accessor, which does not run. */
export const ownValue = (claimed: object, key: PropertyKey): unknown => {
  const descriptor = getOwnPropertyDescriptor(claimed, key)
  if (descriptor === undefined) return undefined
  return hasOwn(descriptor, 'value') ? descriptor.value : refuseValue('ERR_VALUE_UNSUPPORTED', 'an accessor')
}
