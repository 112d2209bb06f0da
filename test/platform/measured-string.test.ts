import crypto from 'node:crypto'
import { syncBuiltinESMExports } from 'node:module'
import workerThreads from 'node:worker_threads'
import test from 'ava'
import { copyBytes, type Bytes } from '../../protocol/bytes.js'
import { readEvidence } from '../../protocol/evidence.js'
import type { Image } from '../../platform/image.js'
import { buildTarget, Host, launchTarget, withPlatform } from '../enclave/target.js'

/**
 * Hostile code in the host after launch (H1) patches whatever stands between measuring a string and running it, so that another
 * string runs under a measurement that a policy lists. Each patch is undone at once: this thread runs the tests too.
 */

const target = buildTarget()

/** The image’s measurement with another string: what must not run. */
const swapped = async (): Promise<{ image: Image; evil: Image }> => {
  const image = await target
  return { image, evil: { ...image, source: image.source.replace('"svn":3', '"svn":9') } }
}

const patched = (owner: object, key: PropertyKey, value: unknown, use: () => void): void => {
  const original = Object.getOwnPropertyDescriptor(owner, key)
  if (original === undefined) throw new Error(`nothing to patch at ${String(key)}`)
  Object.defineProperty(owner, key, { ...original, value })
  syncBuiltinESMExports()
  try {
    use()
  } finally {
    Object.defineProperty(owner, key, original)
    syncBuiltinESMExports()
  }
}

test.serial('another string is refused, whatever the host has made of the hash', async (t) => {
  const { image, evil } = await swapped()
  const digest = Buffer.from(copyBytes(image.measurement))
  const lie = (_algorithm: string, _data: string, encoding: BufferEncoding | 'buffer' = 'hex'): Buffer | string =>
    encoding === 'buffer' ? digest : digest.toString(encoding)
  const hashes = { update: () => hashes, digest: () => digest }
  await withPlatform(async (platform) => {
    const refuses = (): void => {
      t.throws(() => launchTarget(platform, evil), { code: 'ERR_IMAGE_INVALID' })
    }
    refuses()
    patched(crypto, 'hash', lie, refuses)
    patched(crypto, 'createHash', () => hashes, refuses)
    const { update, digest: finish } = crypto.Hash.prototype
    patched(crypto.Hash.prototype, 'digest', () => digest, refuses)
    patched(crypto.Hash.prototype, 'update', () => hashes, refuses)
    t.is(crypto.Hash.prototype.update, update)
    t.is(crypto.Hash.prototype.digest, finish)
  })
})

test.serial('another string is refused, whatever the host has made of copying bytes', async (t) => {
  const { image, evil } = await swapped()
  const typedArray = Object.getPrototypeOf(Uint8Array.prototype) as { set: (source: ArrayLike<number>) => void }
  const { set } = typedArray
  await withPlatform(async (platform) => {
    let error: unknown
    const lie = function (this: Uint8Array, source: ArrayLike<number>): void {
      Reflect.apply(set, this, [this.length === 32 ? image.measurement : source])
    }
    patched(typedArray, 'set', lie, () => {
      try {
        launchTarget(platform, evil)
      } catch (thrown) {
        error = thrown
      }
    })
    t.like(error, { code: 'ERR_IMAGE_INVALID' })
  })
})

test.serial(
  'the string that runs is the measured one, whatever the host has made of strings and workers',
  async (t) => {
    const { image } = await swapped()
    await withPlatform(async (platform) => {
      const seen: unknown[] = []
      class Thief extends workerThreads.Worker {
        constructor(...parameters: ConstructorParameters<typeof workerThreads.Worker>) {
          super(...parameters)
          seen.push(parameters)
        }
      }
      const hosts: Host[] = []
      const launchOnce = (): void => {
        hosts.push(new Host(launchTarget(platform, image)))
      }
      patched(workerThreads, 'Worker', Thief, launchOnce)
      t.is(seen.length, 0, 'the Worker is taken when the platform is loaded')
      for (const method of ['toString', 'valueOf', 'concat', 'trim', 'normalize'] as const)
        patched(String.prototype, method, () => "'use strict'", launchOnce)
      for (const host of hosts) {
        await host.ready()
        const { claims } = readEvidence((await host.call('attest', {})) as Bytes)
        t.like(claims, { name: 'target', svn: 3, measurement: image.measurement })
        await host.instance.terminate()
      }
    })
  },
)
