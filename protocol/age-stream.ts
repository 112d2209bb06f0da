/** Bytes in pieces: how the parts of an age file that can be streamed stand one behind the other. No I/O happens here. */

/**
 * One stage, or what stands behind the last one. Whoever pushes keeps its bytes, to use them again when `push` returns; what a
 * stage of ours passes on is a buffer of its own, for the receiver to keep.
 */
export interface ByteSink extends Disposable {
  /** @param bytes - any number of them, none included; borrowed. */
  push(bytes: Uint8Array): void
  /** Everything was pushed. Only this makes what came before complete; it throws where more was due. */
  end(): void
  /** Gives up, unless `end` succeeded: secrets are wiped and nothing behind is ended. Safe to repeat. */
  [Symbol.dispose](): void
}

/**
 * `stage`, which from now on takes nothing after its end, a failure or its disposal, and is disposed of after any of them: a
 * caller that overlooks an error cannot go on to a part of the file that looks whole.
 */
export const guarded = (stage: ByteSink): ByteSink => new GuardedStage(stage)

class GuardedStage implements ByteSink {
  readonly #stage: ByteSink
  #state: 'live' | 'busy' | 'over' = 'live'

  constructor(stage: ByteSink) {
    this.#stage = stage
  }

  push(bytes: Uint8Array): void {
    this.#enter()
    try {
      this.#stage.push(bytes)
      this.#state = 'live'
    } finally {
      this.#leave()
    }
  }

  end(): void {
    this.#enter()
    try {
      this.#stage.end()
    } finally {
      this.#leave()
    }
  }

  [Symbol.dispose](): void {
    if (this.#state === 'over') return
    this.#state = 'over'
    this.#stage[Symbol.dispose]()
  }

  #enter(): void {
    if (this.#state !== 'live') throw new Error('A stream was used after its end')
    this.#state = 'busy'
  }

  /** Whatever is still busy failed or ended. */
  #leave(): void {
    if (this.#state === 'busy') this[Symbol.dispose]()
  }
}

/**
 * What `stage` makes of `source`, as it is asked for: nothing is read ahead, and no more is held than one piece of `source`
 * turns into. Leaving the loop early gives up the stage. The pieces are the file only once the loop has ended by itself.
 */
export async function* pull(
  source: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
  stage: (next: ByteSink) => ByteSink,
): AsyncGenerator<Uint8Array, void, undefined> {
  const ready: Uint8Array[] = []
  using sink = stage({
    push: (bytes) => {
      ready.push(bytes)
    },
    end: () => undefined,
    [Symbol.dispose]: () => undefined,
  })
  for await (const piece of source) {
    yield* passOn(ready, () => sink.push(piece))
  }
  yield* passOn(ready, () => sink.end())
}

/** Yields what `step` made ready, before the error with which it failed. */
function* passOn(ready: Uint8Array[], step: () => void): Generator<Uint8Array, void, undefined> {
  let failure: { readonly error: unknown } | undefined
  try {
    step()
  } catch (error) {
    failure = { error }
  }
  yield* ready.splice(0)
  if (failure !== undefined) throw failure.error
}

/** Cuts what is pushed into chunks of one size, of which the last may be shorter: it is known only at the end. */
export class ChunkCutter {
  readonly #held: Uint8Array
  #heldSize = 0

  /** @param held - of the size of a chunk; whoever gives it wipes it. */
  constructor(held: Uint8Array) {
    this.#held = held
  }

  /** Lends `use` each chunk that is full and is not the last. */
  push(bytes: Uint8Array, use: (chunk: Uint8Array) => void): void {
    const size = this.#held.length
    let rest = bytes
    while (this.#heldSize + rest.length > size) {
      const takenSize = size - this.#heldSize
      const isWhole = this.#heldSize === 0
      if (!isWhole) this.#held.set(rest.subarray(0, takenSize), this.#heldSize)
      this.#heldSize = 0
      use(isWhole ? rest.subarray(0, size) : this.#held)
      rest = rest.subarray(takenSize)
    }
    this.#held.set(rest, this.#heldSize)
    this.#heldSize += rest.length
  }

  /** What no other chunk took: full, short or empty. */
  get last(): Uint8Array {
    return this.#held.subarray(0, this.#heldSize)
  }
}
