import { execFile } from 'node:child_process'
import { EventEmitter } from 'node:events'
import inspector from 'node:inspector'
import { existsSync } from 'node:fs'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { MessagePort, Worker } from 'node:worker_threads'
import test from 'ava'
import { buildTarget, Host, launchTarget, withPlatform } from '../enclave/target.js'

/** Attacks by hostile code in the host after a launch, each on a bare worker first, where it must succeed. */

const image = buildTarget()
const IDLE = 'setInterval(() => {}, 1000)'
const online = (worker: Worker) => new Promise((resolve) => worker.once('online', resolve))
const SCRIPTS = fileURLToPath(new URL('../enclave/', import.meta.url))

/** What the inspector’s NodeWorker domain can attach to while `running` runs. */
const attachable = async (running: () => Promise<() => Promise<unknown>>): Promise<number> => {
  const session = new inspector.Session()
  session.connect()
  let count = 0
  session.on('NodeWorker.attachedToWorker', () => count++)
  await new Promise((resolve) =>
    session.post('NodeWorker.enable' as never, { waitForDebuggerOnStart: false } as never, resolve),
  )
  const stop = await running()
  await new Promise((resolve) => setTimeout(resolve, 200))
  await stop()
  session.disconnect()
  return count
}

test.serial('the inspector attaches to a bare worker, and not to an enclave', async (t) => {
  const bare = await attachable(async () => {
    const worker = new Worker(IDLE, { eval: true })
    await online(worker)
    return () => worker.terminate()
  })
  t.is(bare, 1)
  const ours = await attachable(() =>
    withPlatform(async (platform) => {
      const host = new Host(launchTarget(platform, await image))
      await host.ready()
      return () => host.instance.terminate()
    }),
  )
  t.is(ours, 0)
})

/** Patches every method of `prototypes`, to catch whatever they are called with, while `running` runs. */
const caughtThis = async (prototypes: readonly object[], running: () => Promise<unknown>): Promise<Set<unknown>> => {
  const caught = new Set<unknown>()
  const undo: (() => void)[] = []
  for (const prototype of prototypes) {
    for (const key of Reflect.ownKeys(prototype)) {
      const before = Object.getOwnPropertyDescriptor(prototype, key)
      const method: unknown = before?.value
      if (before === undefined || typeof method !== 'function' || key === 'constructor' || before.configurable !== true)
        continue
      Object.defineProperty(prototype, key, {
        ...before,
        value: function (this: unknown, ...given: unknown[]): unknown {
          caught.add(this)
          return Reflect.apply(method, this, given)
        },
      })
      undo.push(() => Object.defineProperty(prototype, key, before))
    }
  }
  try {
    await running()
  } finally {
    undo.forEach((restore) => restore())
  }
  return caught
}

/** The prototypes that a worker's methods, its handle's and its ports' come from. */
const prototypesOf = async (): Promise<object[]> => {
  const worker = new Worker(IDLE, { eval: true })
  const parts: unknown[] = [
    worker,
    ...Object.getOwnPropertySymbols(worker).map((key) => (worker as unknown as Record<symbol, unknown>)[key]),
  ]
  const prototypes = new Set<object>([EventEmitter.prototype])
  for (const part of parts) {
    if (typeof part !== 'object' || part === null) continue
    for (
      let next = Object.getPrototypeOf(part) as object | null;
      next !== null && next !== Object.prototype && next !== Map.prototype && next !== Promise.prototype;
      next = Object.getPrototypeOf(next) as object | null
    )
      prototypes.add(next)
  }
  await worker.terminate()
  return [...prototypes]
}

const isWorkerPart = (value: unknown): boolean =>
  value instanceof Worker || (typeof value === 'object' && value !== null && 'takeHeapSnapshot' in value)

test.serial('patched prototypes catch a bare worker, and not an enclave’s', async (t) => {
  const prototypes = await prototypesOf()
  const bare = new Worker(IDLE, { eval: true })
  await online(bare)
  t.true([...(await caughtThis(prototypes, () => bare.terminate()))].some(isWorkerPart))
  await withPlatform(async (platform) => {
    const host = new Host(launchTarget(platform, await image))
    await host.ready()
    const caught = await caughtThis(prototypes, async () => {
      await host.call('add', { a: 1, b: 2 })
      await host.instance.kill()
      await host.instance.exited
    })
    t.false([...caught].some(isWorkerPart))
  })
})

test.serial('an instance leads to its two ports and nothing behind them', async (t) => {
  await withPlatform(async (platform) => {
    const { instance } = new Host(launchTarget(platform, await image))
    const queue: unknown[] = [instance]
    const found = new Set<unknown>()
    for (let next = queue.pop(); next !== undefined; next = queue.pop()) {
      if (
        (typeof next !== 'object' && typeof next !== 'function') ||
        next === null ||
        found.has(next) ||
        next === Object.prototype ||
        next === Function.prototype
      )
        continue
      found.add(next)
      for (const key of Reflect.ownKeys(next)) queue.push(Object.getOwnPropertyDescriptor(next, key)?.value)
    }
    t.false([...found].some((value) => value instanceof Worker || value instanceof MessagePort))
    // The port to the platform, which signs evidence, is not among the handles that any code can list.
    const handles = (process as unknown as { _getActiveHandles(): unknown[] })
      ._getActiveHandles()
      .filter((handle) => handle instanceof MessagePort)
    t.is(handles.length, 2)
    await instance.terminate()
  })
})

for (const [via, env, argv] of [
  ['NODE_OPTIONS=--require', (hook: string) => ({ NODE_OPTIONS: `--require ${hook}` }), () => []],
  ['NODE_OPTIONS=--import', (hook: string) => ({ NODE_OPTIONS: `--import ${hook}` }), () => []],
  ['--require', () => ({}), (hook: string) => ['--require', hook]],
  ['--import', () => ({}), (hook: string) => ['--import', hook]],
] as const) {
  test(`a hook by ${via} runs in a bare worker, and not in an enclave`, async (t) => {
    const directory = await mkdtemp(join(tmpdir(), 'keyrise-hook-'))
    try {
      const hook = join(directory, 'hook.cjs')
      const marker = join(directory, 'ran')
      await writeFile(
        hook,
        `const { isMainThread } = require('node:worker_threads'); if (!isMainThread) require('node:fs').writeFileSync(${JSON.stringify(marker)}, 'x')`,
      )
      const run = (script: string) =>
        promisify(execFile)(process.execPath, [...argv(hook), script], { env: { ...process.env, ...env(hook) } })
      await writeFile(
        join(directory, 'bare.mjs'),
        "import { Worker, isMainThread } from 'node:worker_threads'; if (isMainThread) new Worker(new URL(import.meta.url))",
      )
      await run(join(directory, 'bare.mjs'))
      t.true(existsSync(marker))
      await rm(marker)
      await run(join(SCRIPTS, 'print-and-fail.js'))
      t.false(existsSync(marker))
    } finally {
      await rm(directory, { recursive: true })
    }
  })
}
