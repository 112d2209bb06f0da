/**
 * Makes the intrinsics of this realm unchangeable: their prototypes cannot be extended, their properties can be neither
 * written nor redefined, and no value leads to a way of making code from text. SES `lockdown` does more and freezes, which
 * makes typed arrays tens of times slower on Node 20; why this is enough, and what it costs: docs/adr/0002-hardening.md.
 * @param also - objects beyond the intrinsics, hardened with all that they reach.
 */
export const hardenIntrinsics = (also: readonly object[]): void => {
  const evaluators = removeEvaluators()
  removeGlobals()
  // `payload.__proto__.polluted = 1` then has nothing to reach; `{ __proto__: null }` is syntax and unaffected.
  delete (Object.prototype as { __proto__?: unknown }).__proto__
  const seen = new Set<object>([globalThis])
  for (const root of [...evaluators, ...intrinsicRoots(), ...also]) harden(root, seen)
  lockGlobals()
}

const { defineProperty, getOwnPropertyDescriptor, getPrototypeOf, freeze, hasOwn, preventExtensions } = Object
const { ownKeys } = Reflect

/** Globals that reach the network, disk or other threads, or that load half of Node when they are only looked at. */
// prettier-ignore
const REMOVED_GLOBALS: readonly string[] = [
  'require', 'module', 'exports', '__filename', '__dirname', 'fetch', 'FormData', 'Headers', 'Request', 'Response',
  'WebSocket', 'CloseEvent', 'MessageEvent', 'EventSource', 'Blob', 'File', 'BroadcastChannel', 'MessageChannel',
  'MessagePort', 'navigator', 'Navigator', 'Storage', 'localStorage', 'sessionStorage', 'CustomEvent',
  'TransformStream', 'TransformStreamDefaultController', 'WritableStream', 'WritableStreamDefaultController',
  'WritableStreamDefaultWriter', 'ReadableStream', 'ReadableStreamDefaultReader', 'ReadableStreamBYOBReader',
  'ReadableStreamBYOBRequest', 'ReadableByteStreamController', 'ReadableStreamDefaultController',
  'ByteLengthQueuingStrategy', 'CountQueuingStrategy', 'TextEncoderStream', 'TextDecoderStream', 'CompressionStream',
  'DecompressionStream', 'Performance', 'PerformanceEntry', 'PerformanceMark', 'PerformanceMeasure',
  'PerformanceObserver', 'PerformanceObserverEntryList', 'PerformanceResourceTiming',
]

/** Properties that classes and instances commonly set for themselves, although a prototype above them has one. */
// prettier-ignore
const OVERRIDDEN: ReadonlySet<PropertyKey> = new Set([
  'constructor', 'toString', 'toLocaleString', 'valueOf', 'toJSON', 'name', 'message', 'stack', 'hasOwnProperty',
  'length', 'push', 'then', 'catch', 'finally', 'get', 'set', 'has', 'delete', 'next', 'return', 'throw',
])

/** What stays becomes a plain value: Node loads some globals at first sight, and could not once they are locked. */
const removeGlobals = (): void => {
  for (const name of REMOVED_GLOBALS) delete (globalThis as Record<string, unknown>)[name]
  for (const key of ownKeys(globalThis)) {
    const descriptor = getOwnPropertyDescriptor(globalThis, key)
    if (descriptor === undefined || hasOwn(descriptor, 'value')) continue
    const value: unknown = (globalThis as Record<PropertyKey, unknown>)[key]
    defineProperty(globalThis, key, {
      value,
      writable: true,
      enumerable: descriptor.enumerable === true,
      configurable: true,
    })
  }
}

const refuseEvaluation = (): never => {
  throw new TypeError('Code from text is not available in an enclave')
}

/**
 * `eval` and the four function constructors: the usual last step of an escape. What is bundled keeps `Function` as a name
 * of its own (platform/bundle.ts); nothing that can be reached from a value leads to it.
 * @returns the constructors, which are to be hardened although no value leads to them.
 */
const removeEvaluators = (): object[] => {
  delete (globalThis as { eval?: unknown }).eval
  const prototypes = [function () {}, async function () {}, function* () {}, async function* () {}].map(
    (f) => getPrototypeOf(f) as object,
  )
  return prototypes.map((prototype) => {
    const evaluator = prototype.constructor
    const inert = function (): never {
      return refuseEvaluation()
    }
    // `x instanceof Function` goes on working.
    defineProperty(inert, 'prototype', { value: prototype, writable: false, enumerable: false, configurable: false })
    defineProperty(prototype, 'constructor', { value: inert, writable: false, enumerable: false, configurable: true })
    if (prototype === Function.prototype)
      defineProperty(globalThis, 'Function', { value: inert, writable: true, configurable: true })
    return evaluator
  })
}

/** Every intrinsic by name, and those that only syntax reaches. */
const intrinsicRoots = (): object[] => {
  const isObject = (value: unknown): value is object =>
    (typeof value === 'object' && value !== null) || typeof value === 'function'
  const named = ownKeys(globalThis)
    .filter((key) => key !== 'process' && key !== 'console')
    .map((key): unknown => getOwnPropertyDescriptor(globalThis, key)?.value)
  const unnamed: unknown[] = [
    function* () {},
    async function () {},
    async function* () {},
    [][Symbol.iterator](),
    new Map()[Symbol.iterator](),
    new Set()[Symbol.iterator](),
    ''[Symbol.iterator](),
    'a'.matchAll(/a/g),
    (function* () {})(),
    (async function* () {})(),
  ].map((value: object) => getPrototypeOf(value) as unknown)
  return [...named, ...unnamed].filter(isObject)
}

/** The value of a hardened property that heirs may set for themselves: assignment to an heir defines its own. */
const defineOverridable = (
  owner: object,
  key: PropertyKey,
  value: unknown,
  enumerable: boolean,
  seen: Set<object>,
): void => {
  const { get, set } = {
    get: (): unknown => value,
    set(this: object, replacement: unknown): void {
      if (this === owner) throw new TypeError('This property cannot be changed in an enclave')
      defineProperty(this, key, { value: replacement, writable: true, enumerable: true, configurable: true })
    },
  }
  defineProperty(owner, key, { get, set, enumerable, configurable: false })
  harden(get, seen)
  harden(set, seen)
}

const isOverridden = (owner: object, key: PropertyKey): boolean =>
  typeof key === 'string' &&
  (owner === Object.prototype || (OVERRIDDEN.has(key) && typeof owner !== 'function') || owner === Function.prototype)

const harden = (owner: unknown, seen: Set<object>): void => {
  if (owner === null || (typeof owner !== 'object' && typeof owner !== 'function') || seen.has(owner)) return
  seen.add(owner)
  const descriptors = ownKeys(owner).map((key) => [key, getOwnPropertyDescriptor(owner, key)] as const)
  for (const [, descriptor] of descriptors)
    for (const part of [descriptor?.value, descriptor?.get, descriptor?.set]) harden(part, seen)
  harden(getPrototypeOf(owner), seen)
  if (isPrototype(owner)) lockPrototype(owner, descriptors, seen)
  else freeze(owner)
}

/** What instances inherit from. The prototypes of iterators may lack a constructor: nobody stores into those. */
const isPrototype = (owner: object): boolean => typeof owner !== 'function' && hasOwn(owner, 'constructor')

/**
 * A prototype is locked property by property: frozen, it would slow every store into the arrays that inherit from it. Done
 * so, it becomes a slow object; an heir makes the engine optimise it again.
 */
const lockPrototype = (
  owner: object,
  descriptors: readonly (readonly [PropertyKey, PropertyDescriptor | undefined])[],
  seen: Set<object>,
): void => {
  for (const [key, descriptor] of descriptors) {
    if (descriptor?.configurable !== true && descriptor?.writable !== true) continue
    if (!hasOwn(descriptor, 'value')) defineProperty(owner, key, { configurable: false })
    else if (descriptor.configurable === true && isOverridden(owner, key))
      defineOverridable(owner, key, descriptor.value, descriptor.enumerable === true, seen)
    else defineProperty(owner, key, { writable: false, configurable: false })
  }
  preventExtensions(owner)
  const Heir = function () {} as unknown as new () => object
  Heir.prototype = owner
  new Heir()
}

/** The names of the intrinsics stay what they are; new globals can still be made, by libraries that need them. */
const lockGlobals = (): void => {
  for (const key of ownKeys(globalThis)) {
    const descriptor = getOwnPropertyDescriptor(globalThis, key)
    if (descriptor?.configurable === true) defineProperty(globalThis, key, { writable: false, configurable: false })
  }
}
