import { Worker, type WorkerOptions } from 'node:worker_threads'

/** A worker that runs one string, from outside. Nobody gets the Worker itself: it could take a heap snapshot. */
export interface IsolatedWorker {
  /** Resolves, never rejects, when the worker is gone. */
  readonly exited: Promise<{ readonly reason: string }>
  /** Ends it at once. */
  readonly kill: () => Promise<void>
}

/** `--permission` was experimental on Node 20. Without it the inspector could attach to the worker (security.md, finding 2). */
const PERMISSION_FLAG = Number(process.versions.node.split('.')[0]) >= 22 ? '--permission' : '--experimental-permission'

/** Nothing of the host's environment, arguments, preloaded modules or streams reaches the worker. */
const ISOLATION = {
  eval: true,
  env: {},
  argv: [],
  stdin: false,
  // Captured and never read: the worker's output is not the host's.
  stdout: true,
  stderr: true,
  execArgv: [PERMISSION_FLAG, '--no-addons', '--no-warnings'],
  trackUnmanagedFds: true,
  resourceLimits: { maxOldGenerationSizeMb: 1024 },
} as const satisfies WorkerOptions

/** Exit codes of enclave/boot.ts. */
const EXIT_REASONS: ReadonlyMap<number, string> = new Map([
  [0, 'ended'],
  [70, 'failed'],
])

/** Taken when this module is loaded: what the host puts in its place later gets neither the string nor the ports. */
const NodeWorker = Worker

/** Starts `source`, exactly as given, with the recipe of security.md, "Launch recipe". */
export const startWorker = (
  source: string,
  workerData: unknown,
  transferList: NonNullable<WorkerOptions['transferList']>,
): IsolatedWorker => {
  const worker = new NodeWorker(source, { ...ISOLATION, workerData, transferList })
  pin(worker)
  let reason: string | undefined
  const exited = new Promise<{ reason: string }>((resolve) => {
    // The error itself is dropped: its text is the worker's.
    worker.on('error', (error: unknown) => {
      reason = isOutOfMemory(error) ? 'out of memory' : 'failed'
    })
    worker.on('exit', (code) => {
      const exit = { reason: reason ?? EXIT_REASONS.get(code) ?? `exit code ${code}` }
      // After one whole turn, what the worker posted last has been delivered: FAILED is read before the end.
      setImmediate(() => setImmediate(resolve, exit))
    })
  })
  return {
    exited,
    kill: async () => {
      reason ??= 'killed'
      await worker.terminate()
    },
  }
}

const isOutOfMemory = (error: unknown): boolean =>
  error instanceof Error && 'code' in error && error.code === 'ERR_WORKER_OUT_OF_MEMORY'

/**
 * Gives an object its own copies of the methods it inherits, and so for what it is made of. Code that patches a prototype
 * later, to be called with the worker or one of its ports as `this`, is not called.
 */
export const pin = (owner: object): void => {
  const parts = Reflect.ownKeys(owner).map((key) => Object.getOwnPropertyDescriptor(owner, key)?.value as unknown)
  pinMethods(owner)
  for (const part of parts) if (typeof part === 'object' && part !== null && isNodeObject(part)) pinMethods(part)
}

/** Ports and handles; plain objects, arrays and maps have no methods that would be called with the worker. */
const isNodeObject = (part: object): boolean => {
  const prototype: unknown = Object.getPrototypeOf(part)
  return (
    prototype !== Object.prototype &&
    prototype !== null &&
    !Array.isArray(part) &&
    !(part instanceof Map) &&
    !(part instanceof Promise)
  )
}

const pinMethods = (owner: object): void => {
  for (
    let prototype = Object.getPrototypeOf(owner) as object | null;
    prototype !== null && prototype !== Object.prototype;
    prototype = Object.getPrototypeOf(prototype) as object | null
  ) {
    for (const key of Reflect.ownKeys(prototype)) {
      const method: unknown = Object.getOwnPropertyDescriptor(prototype, key)?.value
      if (typeof method !== 'function' || key === 'constructor' || Object.hasOwn(owner, key)) continue
      // Writable, since sockets set their own `write` when they end.
      Object.defineProperty(owner, key, { value: method, writable: true, enumerable: false, configurable: false })
    }
  }
}
