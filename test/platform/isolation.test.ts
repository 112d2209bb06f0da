import { MessagePort, Worker } from 'node:worker_threads'
import test from 'ava'
import { buildTarget, Host, launchTarget, withPlatform } from '../enclave/target.js'

/** What the host's code can reach from an instance; `npm run attack` has the ways around it. */

const image = buildTarget()

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
