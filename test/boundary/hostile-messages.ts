import { createSecretKey } from 'node:crypto'

/** Numbers by mulberry32, of a seed that a failure prints. */
export class Dice {
  #state: number

  constructor(seed: number) {
    this.#state = seed >>> 0
  }

  /** 0…count − 1. */
  roll(count: number): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(this.#state ^ (this.#state >>> 15), this.#state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) % count
  }

  pick<T>(of: readonly T[]): T {
    return of[this.roll(of.length)] as T
  }
}

const NAMES = ['add', 'take', 'ask', 'spend', 'digest', 'memory'] as const
// prettier-ignore
const TEXTS = [
  '', 'x', '__proto__', 'constructor', 'prototype', 'toString', 'then', 'hasOwnProperty', 'valueOf', 'toJSON', '\u0000',
  '\ud800', 'é', '0', '-1', '4294967296', '1e9', 'RAW', 'APPLY', 'HANDLER', 'throw', 'proxy', 'spend', 'keyrise:store-put',
] as const

const cyclic = (): unknown => {
  const object: Record<string, unknown> = { list: [] }
  object['self'] = object
  ;(object['list'] as unknown[]).push(object)
  return object
}

const nested = (depth: number, wrap: (inner: unknown) => unknown): unknown => {
  let value: unknown = 1
  for (let level = 0; level < depth; level++) value = wrap(value)
  return value
}

const sparse = (length: number): unknown[] => {
  const list: unknown[] = [1]
  list.length = length
  return list
}

const resizable = (): ArrayBuffer =>
  new (ArrayBuffer as unknown as new (size: number, options: object) => ArrayBuffer)(8, { maxByteLength: 64 })
const growable = (): SharedArrayBuffer =>
  new (SharedArrayBuffer as unknown as new (size: number, options: object) => SharedArrayBuffer)(8, {
    maxByteLength: 64,
  })
const withOwnProto = (value: unknown): object =>
  Object.defineProperty({}, '__proto__', { value, enumerable: true, configurable: true, writable: true })

// prettier-ignore
const TYPED_ARRAYS = [
  Uint8Array, Uint8ClampedArray, Int8Array, Uint16Array, Int16Array, Uint32Array, Int32Array, Float32Array, Float64Array,
  BigInt64Array, BigUint64Array,
] as const

class Instance {
  field = 1
  get computed(): number {
    return 1
  }
}

/** Values that structured cloning passes, and some that it refuses, which a host then cannot send. */
export class HostileMessages {
  readonly #dice: Dice
  #count = 0

  constructor(dice: Dice) {
    this.#dice = dice
  }

  value(depth = 0): unknown {
    const dice = this.#dice
    if (depth < 4 && dice.roll(3) === 0) return this.#container(depth)
    switch (dice.roll(14)) {
      case 0:
        return dice.pick([undefined, null, true, false])
      case 1:
        return dice.pick([0, -0, 1, -1, 0.5, NaN, Infinity, -Infinity, 2 ** 53, 5e-324, 2 ** 32, 1e308])
      case 2:
        return dice.pick([0n, 1n, -(2n ** 200n)])
      case 3:
        return dice.pick(TEXTS)
      case 4:
        return 'x'.repeat(dice.pick([1, 100, 5000, 40_000]))
      case 5:
        return dice.pick([new Date(0), new Date(NaN), /x/gi, new Error('x'), new RangeError('x', { cause: cyclic() })])
      case 6:
        return dice.pick([Object('x'), Object(1), Object(true), Object(1n), new Instance()] as unknown[])
      case 7:
        return dice.pick([new Map([[1, {}]]), new Set([1, cyclic()]), new Map([['__proto__', 1]])])
      case 8:
        return new (dice.pick(TYPED_ARRAYS))(dice.pick([0, 1, 7, 100]))
      case 9:
        return dice.pick([
          new ArrayBuffer(8),
          resizable(),
          new DataView(new ArrayBuffer(8)),
          new Uint8Array(resizable()),
        ])
      case 10:
        return dice.pick([
          new SharedArrayBuffer(8),
          growable(),
          new Uint8Array(new SharedArrayBuffer(8), 2, 2),
          new Uint8Array(growable()),
          new Float64Array(new SharedArrayBuffer(8)),
        ])
      case 11:
        return new Uint8Array(new ArrayBuffer(600), dice.roll(200), dice.roll(400))
      case 12:
        return new Uint8Array(dice.pick([1, 64, 4096, 70_000]))
      default:
        return dice.pick([
          createSecretKey(new Uint8Array(8)),
          cyclic(),
          withOwnProto({ polluted: 1 }),
          sparse(2 ** 32 - 1),
        ])
    }
  }

  #container(depth: number): unknown {
    const dice = this.#dice
    const parts = Array.from({ length: dice.roll(4) }, () => this.value(depth + 1))
    switch (dice.roll(6)) {
      case 0:
        return parts
      case 1:
        return Object.fromEntries(parts.map((part) => [dice.pick(TEXTS.filter((text) => text !== '__proto__')), part]))
      case 2:
        return nested(dice.pick([2, 16, 17, 40, 500]), dice.pick([(inner) => [inner], (inner) => ({ inner })]))
      case 3:
        return withOwnProto(parts)
      case 4:
        return dice.pick([
          sparse(3),
          sparse(5000),
          Array.from({ length: 3000 }, () => 0),
          Object.assign([1], { extra: 1 }),
        ])
      default:
        return { constructor: { prototype: { polluted: parts[0] } }, toString: parts[1], a: 1, b: 2 }
    }
  }

  /** A message for a gate. `expected`: what its answer must be, where it must be one thing. */
  message(): { readonly message: unknown; readonly id: string; readonly expected?: unknown } {
    const dice = this.#dice
    const id = `h${String(this.#count++)}`
    const raw = (value: unknown) => ({ type: 'RAW', value })
    const apply = {
      id,
      type: 'APPLY',
      path: [dice.pick(NAMES.slice(0, 2))] as unknown,
      argumentList: [raw(this.value())],
    }
    switch (dice.roll(12)) {
      case 0:
        return { message: this.value(), id }
      case 1:
        return { message: { ...apply, path: ['add'], argumentList: [raw({ a: dice.roll(9), b: 1 })] }, id }
      case 2: {
        const a = dice.roll(1000)
        // Under an id that no other message uses.
        const right = { ...apply, id: `r${id}`, path: ['add'], argumentList: [raw({ a, b: 1 })] }
        return { message: right, id: right.id, expected: a + 1 }
      }
      case 3:
        return {
          message: {
            ...apply,
            // Of a call before it, too: of a stream that never was.
            id: dice.pick([id, `h${String(Math.max(0, this.#count - dice.roll(30)))}`]),
            type: dice.pick([
              'GET',
              'SET',
              'CONSTRUCT',
              'ENDPOINT',
              'RELEASE',
              'RAW',
              'HANDLER',
              'READY',
              'ITEM',
              'END',
              'CREDIT',
              'CANCEL',
              ...TEXTS,
            ]),
            count: this.value(),
            value: this.value(),
          },
          id,
        }
      case 4:
        return { message: { ...apply, path: this.#path() }, id }
      case 5:
        return { message: { ...apply, argumentList: this.#arguments() }, id }
      case 6: {
        const key = dice.pick(['id', 'type', 'path', 'argumentList', 'key', 'switchless'])
        return { message: { ...apply, [key]: this.value() }, id }
      }
      case 7: {
        const missing = dice.pick(['id', 'type', 'path', 'argumentList'])
        return { message: Object.fromEntries(Object.entries(apply).filter(([key]) => key !== missing)), id }
      }
      case 8:
        return {
          message: {
            ...apply,
            id: dice.pick<unknown>([...TEXTS, 'y'.repeat(65), 7, -7, 1.5, 2 ** 32, null, { id }, [id]]),
          },
          id,
        }
      case 9:
        return { message: { ...apply, path: ['spend'], argumentList: this.#wrongAmount() }, id }
      default:
        return { message: apply, id }
    }
  }

  /** A claimed answer to the call `id`, or to another. */
  reply(id: string): unknown {
    const dice = this.#dice
    const claimed = dice.roll(4) === 0 ? id : dice.pick<unknown>([...TEXTS, `${id}0`, '1', '2', Number(id), null, [id]])
    const code = dice.pick<unknown>(['ERR_ROLLBACK', 'ERR_FENCED', 'ERR_OCALL_UNKNOWN', 'ERR_NOTHING', 7, undefined])
    switch (dice.roll(6)) {
      case 0:
        return this.value()
      case 1:
        return {
          id: claimed,
          type: 'HANDLER',
          name: dice.pick(['throw', 'proxy', '']),
          value: {
            isError: dice.pick([true, false, 1]),
            value: { code, message: 'x', reason: this.value(), stack: 'x' },
          },
        }
      case 2:
        return {
          id: claimed,
          type: dice.pick(['APPLY', 'ITEM', 'END', 'CREDIT', 'CANCEL', ...TEXTS]),
          value: this.value(),
          count: this.value(),
        }
      case 3:
        return { id: claimed, type: 'HANDLER', name: 'throw', value: this.value() }
      default:
        return { id: claimed, type: 'RAW', value: this.value() }
    }
  }

  #path(): unknown {
    const name = this.#dice.pick(NAMES)
    return this.#dice.pick<unknown>([
      [],
      [name, 'constructor'],
      ['constructor'],
      ['__proto__'],
      ['toString'],
      [[name]],
      [Object(name)],
      name,
      { 0: name, length: 1 },
      [name, name],
      [`${name} `],
      ['then'],
      [name.toUpperCase()],
      ['x'.repeat(65)],
      sparse(2 ** 31),
      [undefined],
      new Set([name]),
    ])
  }

  #arguments(): unknown {
    const value = this.value()
    return this.#dice.pick<unknown>([
      [{ type: 'HANDLER', name: 'proxy', value }],
      [{ type: 'HANDLER', name: 'throw', value }],
      [value],
      value,
      {},
      [[]],
      [
        { type: 'RAW', value: 1 },
        { type: 'RAW', value },
      ],
      [{ value }],
      [{ type: Object('RAW') as unknown, value }],
      sparse(2 ** 31),
      new Map([[0, { type: 'RAW', value }]]),
    ])
  }

  /** Near what `spend` takes, and never it. */
  #wrongAmount(): unknown {
    const raw = (value: unknown) => [{ type: 'RAW', value }]
    return this.#dice.pick<unknown>([
      raw({ amount: '1' }),
      raw([1]),
      raw({ amount: NaN }),
      raw({ Amount: 1 }),
      raw({ amount: Object(1) as unknown }),
      raw(withOwnProto({ amount: 1 })),
      raw(new Map([['amount', 1]])),
      raw({ amount: 1n }),
      [...raw({ amount: 1 }), ...raw({ amount: 1 })],
      [{ value: { amount: 1 } }],
    ])
  }
}
