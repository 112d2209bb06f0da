import { EventEmitter } from 'node:events'
import { Worker } from 'node:worker_threads'
import { leaks, stops, type Attack } from '../attack.js'

/** Ways for the host’s code to the object that stands for the worker. */

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

/** The prototypes that a worker’s methods, its handle’s and its ports’ come from. */
const prototypesOf = async (): Promise<object[]> => {
  const worker = new Worker('setInterval(() => {}, 1000)', { eval: true })
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

export const isWorkerPart = (value: unknown): boolean =>
  value instanceof Worker || (typeof value === 'object' && value !== null && 'takeHeapSnapshot' in value)

const prototypePatch: Attack = {
  name: 'prototype-patch-no-handle',
  attacker: 'H1',
  tries:
    'every method that a Worker, its handle and its ports inherit, patched after the launch to catch what it is called with',
  expected: { bare: 'leaks', worker: 'stops', process: { notApplicable: 'no worker' } },
  async run(stage) {
    const prototypes = await prototypesOf()
    const victim = await stage.launch()
    const caught = await caughtThis(prototypes, async () => {
      await victim.call('sign', new Uint8Array(8))
      await victim.end()
      await victim.instance.exited
    })
    return [...caught].some(isWorkerPart) ? leaks('the Worker is caught') : stops('nothing of the Worker is caught')
  },
}

export const HANDLE_ATTACKS: readonly Attack[] = [prototypePatch]
