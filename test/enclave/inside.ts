import childProcess from 'node:child_process'
import crypto from 'node:crypto'
import { EventEmitter } from 'node:events'
import fs from 'node:fs'
import inspector from 'node:inspector'
import { inspect } from 'node:util'
import vm from 'node:vm'
import workerThreads from 'node:worker_threads'

/** What code inside an enclave tries, to tell what it could do. Each returns what should not have worked, by name. */

const tryEach = (attempts: Readonly<Record<string, () => unknown>>): string[] =>
  Object.entries(attempts)
    .filter(([, attempt]) => {
      try {
        return attempt() !== undefined
      } catch {
        return false
      }
    })
    .map(([name]) => name)

/** Ways out of the worker that the permission flags and boot must close. */
export const probeCapabilities = (): string[] => {
  const claimedProcess = process as unknown as Record<string, unknown>
  const claimedGlobal = globalThis as unknown as Record<string, unknown>
  return tryEach({
    'read a file': () => fs.readFileSync('/etc/hostname'),
    'write a file': () => {
      fs.writeFileSync('/tmp/keyrise-probe', 'x')
      return 'written'
    },
    'start a process': () => childProcess.spawnSync('true').pid,
    'start a worker': () => new workerThreads.Worker('', { eval: true }),
    'inspect itself': () => {
      new inspector.Session().connect()
      return 'attached'
    },
    'inspect the host': () => {
      new inspector.Session().connectToMainThread()
      return 'attached'
    },
    'write a heap snapshot': () => claimedProcess['report'] ?? undefined,
    'reach parentPort': () => workerThreads.parentPort ?? undefined,
    'reach workerData': () => (workerThreads.workerData as unknown) ?? undefined,
    'see the environment': () => Object.keys(process.env)[0],
    'see arguments': () => process.argv[2],
    'find require by name': () => claimedGlobal['require'],
    'find module by name': () => claimedGlobal['module'],
    'use eval': () => (claimedGlobal['eval'] as (code: string) => unknown)('1'),
    'use the global Function': () => (claimedGlobal['Function'] as FunctionConstructor)('return 1')() as unknown,
    'reach a prototype as __proto__': () => (({}) as Record<string, unknown>)['__proto__'],
    'open a BroadcastChannel': () => claimedGlobal['BroadcastChannel'],
    fetch: () => claimedGlobal['fetch'],
    'write to an open file': () => fs.writeSync(1, ''),
    'open a channel to all threads': () => new workerThreads.BroadcastChannel('probe'),
    'open the debugger': () => {
      inspector.open(0, '127.0.0.1')
      return inspector.url()
    },
    ...Object.fromEntries(
      [
        'binding',
        '_linkedBinding',
        'dlopen',
        'kill',
        '_rawDebug',
        'getBuiltinModule',
        'mainModule',
        '_getActiveHandles',
      ].map((name) => [`process.${name}`, () => claimedProcess[name]]),
    ),
    'write to an output': () =>
      'emit' in process.stdout && process.stdout instanceof EventEmitter ? 'a stream' : undefined,
    'print through console': () => {
      const asked: string[] = []
      console.log({ [inspect.custom]: () => asked.push('formatted') })
      return asked[0]
    },
    'have stack traces': () => (new Error('x').stack?.includes('\n') === true ? 'yes' : undefined),
    'replace a function of node:crypto': () => {
      ;(crypto as unknown as Record<string, unknown>)['randomFillSync'] = () => undefined
      return 'replaced'
    },
  })
}

/** What surrounds code inside, beside its arguments: names of variables, and data that the host gave all of its threads. */
export const listSurroundings = (): string[] => [
  ...Object.keys(process.env),
  ...tryEach({ 'data of all threads': () => workerThreads.getEnvironmentData(SHARED_DATA) }),
]
export const SHARED_DATA = 'attack'

const isObject = (value: unknown): value is object =>
  (typeof value === 'object' && value !== null) || typeof value === 'function'

/** Everything that can be reached by properties and prototypes from the globals and from what Node gives an enclave. */
const reachable = (): Map<object, string> => {
  const found = new Map<object, string>()
  const queue: (readonly [unknown, string])[] = [
    [globalThis, 'globalThis'],
    [process, 'process'],
    [console, 'console'],
    [crypto, 'crypto'],
    [async () => {}, 'async'],
    [function* () {}, 'generator'],
    [async function* () {}, 'async generator'],
  ]
  for (let next = queue.pop(); next !== undefined; next = queue.pop()) {
    const [value, path] = next
    if (!isObject(value) || found.has(value) || value === vm || path.length > 200) continue
    found.set(value, path)
    queue.push([Object.getPrototypeOf(value), `${path}.[[Prototype]]`])
    for (const key of Reflect.ownKeys(value)) {
      const descriptor = Object.getOwnPropertyDescriptor(value, key)
      for (const part of [descriptor?.value, descriptor?.get, descriptor?.set] as unknown[])
        queue.push([part, `${path}.${String(key)}`])
    }
  }
  return found
}

const MAKERS = ['Function', 'AsyncFunction', 'GeneratorFunction', 'AsyncGeneratorFunction']

/** Paths from values to a constructor that turns text into code: how an attack on Comlink's paths goes. */
export const listEscapes = (): string[] => {
  const escapes: string[] = []
  for (const [value, path] of reachable()) {
    try {
      const { constructor } = value as { constructor: unknown }
      // Others are not called: some of Node's abort the process.
      if (typeof constructor !== 'function' || !MAKERS.includes(constructor.name)) continue
      const make = constructor as (code: string) => unknown
      if (typeof make('return 7') === 'function') escapes.push(path)
    } catch {
      // Not a way.
    }
  }
  return escapes.sort()
}

// prettier-ignore
const INTRINSICS: readonly string[] = [
  'Object', 'Function', 'Array', 'String', 'Number', 'Boolean', 'Symbol', 'BigInt', 'Error', 'TypeError',
  'RangeError', 'Promise', 'Map', 'Set', 'WeakMap', 'WeakSet', 'WeakRef', 'ArrayBuffer', 'SharedArrayBuffer',
  'DataView', 'Uint8Array', 'Uint32Array', 'Float64Array', 'RegExp', 'Date', 'Proxy', 'TextEncoder', 'TextDecoder',
  'AbortController', 'AbortSignal', 'EventTarget', 'URL', 'Buffer',
]

/** Intrinsics of which a property can be added, replaced or redefined. */
export const listSoftIntrinsics = (): string[] => {
  const soft: string[] = []
  const owners: [string, object][] = []
  for (const name of INTRINSICS) {
    const intrinsic = (globalThis as unknown as Record<string, { readonly prototype?: unknown }>)[name]
    if (intrinsic === undefined) continue
    owners.push([name, intrinsic])
    if (isObject(intrinsic.prototype)) owners.push([`${name}.prototype`, intrinsic.prototype])
  }
  // What the bundle itself calls Function is not the global.
  owners.push(['the bundle’s Function', Function])
  const generator = Object.getPrototypeOf(function* () {}) as object
  owners.push(['Math', Math], ['JSON', JSON], ['Reflect', Reflect], ['Atomics', Atomics], ['generator', generator])
  owners.push(
    ['array iterator', Object.getPrototypeOf([][Symbol.iterator]()) as object],
    ['%TypedArray%', Object.getPrototypeOf(Uint8Array.prototype) as object],
  )
  for (const [name, owner] of owners) {
    if (Reflect.defineProperty(owner, 'polluted', { value: 1, configurable: true }))
      soft.push(`${name} can be extended`)
    for (const key of Reflect.ownKeys(owner)) {
      const before = Object.getOwnPropertyDescriptor(owner, key)
      tryEach({
        set: () => Reflect.set(owner, key, 'changed'),
        define: () => Reflect.defineProperty(owner, key, { value: 'changed' }),
        delete: () => Reflect.deleteProperty(owner, key),
      })
      const after = Object.getOwnPropertyDescriptor(owner, key)
      if (!Object.is(before?.value, after?.value) || before?.get !== after?.get || before?.set !== after?.set)
        soft.push(`${name}.${String(key)}`)
    }
  }
  for (const name of INTRINSICS)
    if (Reflect.set(globalThis, name, 1) || Reflect.deleteProperty(globalThis, name)) soft.push(`the name ${name}`)
  return soft
}
