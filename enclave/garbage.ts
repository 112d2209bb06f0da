import { formatObjectName, type ObjectName } from './object-names.js'

/** Waiting is cheap: a file costs a file system as much to forget as to make, and several at once hardly more than one. */
const WAITING_COUNT_MAX = 8
const WAITING_SIZE_BYTES_MAX = 4 * 1024 * 1024

/** Objects that no state lists any more, until they are deleted. */
export class Garbage {
  #objects: readonly ObjectName[]
  #sizeBytes: number
  /** Of the objects that this instance wrote. */
  readonly #sizes = new Map<string, number>()

  /** @param left - by earlier instances: of unknown size, so they do not wait. */
  constructor(left: readonly ObjectName[]) {
    this.#objects = left
    this.#sizeBytes = left.length > 0 ? Infinity : 0
  }

  /** Tells the size of an object that is being written. */
  weigh(object: ObjectName, sizeBytes: number): void {
    this.#sizes.set(formatObjectName(object), sizeBytes)
  }

  add(objects: readonly ObjectName[]): void {
    this.#objects = [...this.#objects, ...objects]
    for (const object of objects) {
      const name = formatObjectName(object)
      this.#sizeBytes += this.#sizes.get(name) ?? Infinity
      this.#sizes.delete(name)
    }
  }

  get isEmpty(): boolean {
    return this.#objects.length === 0
  }

  /** True when it is worth deleting some. */
  get isDue(): boolean {
    return this.#objects.length >= WAITING_COUNT_MAX || this.#sizeBytes >= WAITING_SIZE_BYTES_MAX
  }

  /** Takes the first `count` out. */
  take(count: number): readonly ObjectName[] {
    const taken = this.#objects.slice(0, count)
    this.#objects = this.#objects.slice(count)
    if (this.isEmpty) this.#sizeBytes = 0
    return taken
  }
}
