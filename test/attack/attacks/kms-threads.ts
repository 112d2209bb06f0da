import { readFile } from 'node:fs/promises'
import inspector from 'node:inspector'
import { join } from 'node:path'
import type { Readable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { Worker } from 'node:worker_threads'
import { startKms } from '../../../kms/index.js'
import { Keyring } from '../../../kms/keyring.js'
import { unsealKeys } from '../../../kms/unseal-keys.js'
import { UnsealPool } from '../../../kms/pool.js'
import { nodeRandom } from '../../../protocol/crypto/primitives.js'
import { Secret } from '../../../protocol/crypto/secret.js'
import { leaks, stops, type Attack, type Finding } from '../attack.js'
import { formsIn } from '../canary.js'
import { masked } from '../mask.js'
import { dumpMemory } from '../memory-dump.js'
import type { Stage } from '../stage.js'
import { portsOf, sendScript } from '../thread-handles.js'

/** The threads that hold the KMS's keys, attacked as an enclave's worker is. */

const readAll = async (stream: Readable): Promise<Buffer> => {
  const chunks: Buffer[] = []
  for await (const chunk of stream) chunks.push(chunk as Buffer)
  return Buffer.concat(chunks)
}

const snapshotOf = Object.getOwnPropertyDescriptor(Worker.prototype, 'getHeapSnapshot')?.value as (
  this: Worker,
) => Promise<Readable>

/** A thread that sleeps takes none: what it gives is nothing. */
const snapshot = (handle: Worker): Promise<Buffer> =>
  Promise.race([snapshotOf.call(handle).then(readAll), sleep(3_000).then(() => Buffer.alloc(0))])

/**
 * The process’s memory once the threads have ended of an error: another script is sent to them, which Node refuses. Those that sleep
 * do not hear of it, and are ended from outside.
 */
const memoryAfter = async (stage: Stage, handles: readonly Worker[]): Promise<Buffer> => {
  if (process.platform !== 'linux') return Buffer.alloc(0)
  for (const handle of handles) {
    handle.on('error', () => undefined)
    const ended = new Promise((resolve) => handle.once('exit', resolve))
    for (const port of portsOf(handle)) sendScript(port, '')
    await Promise.race([ended, sleep(1_000)])
    await handle.terminate()
  }
  const path = join(stage.directory, 'dump')
  dumpMemory('self', path)
  return readFile(path)
}

/** Takes every handle that Node hands out while `start` runs, attaches to what can be attached to, and searches the heaps. */
const attackThreads = async (
  start: () => Promise<() => Promise<Uint8Array[]>>,
  memory: (handles: readonly Worker[]) => Promise<Buffer> = () => Promise.resolve(Buffer.alloc(0)),
): Promise<Finding> => {
  const handles: Worker[] = []
  process.on('worker', (handle) => handles.push(handle))
  const keys = await start()
  let attachedCount = 0
  const session = new inspector.Session()
  session.connect()
  session.on('NodeWorker.attachedToWorker', () => attachedCount++)
  session.post('NodeWorker.enable' as never, { waitForDebuggerOnStart: false } as never)
  await sleep(300)
  session.disconnect()
  if (handles.length === 0) throw new Error('There is no handle to take a snapshot with')
  const heaps: Buffer[] = []
  for (const handle of handles) heaps.push(await snapshot(handle))
  const left = await memory([...handles])
  const known = await keys()
  if (known.length === 0) throw new Error('There is no key to look for')
  // An allocator writes over the beginning of what is freed.
  if (known.some((key) => [key, key.subarray(key.length / 2)].some((part) => left.includes(Buffer.from(part)))))
    return leaks('a key outlives the thread')
  if (heaps.some((heap) => known.some((key) => formsIn(heap, key).length > 0))) return leaks('a heap has a key')
  return attachedCount > 0
    ? leaks('the inspector attaches')
    : stops('nothing attaches, and no heap or memory has a key')
}

const bareThread = async (stage: Stage): Promise<() => Promise<Uint8Array[]>> => {
  const victim = await stage.launch()
  victim.worker?.on('error', () => undefined)
  const told = await victim.maskedCanary()
  return () => Promise.resolve([masked(told)])
}

const SAME = { notApplicable: 'the KMS is the same, however its enclaves are isolated' }
const TRIES = 'heap snapshots by the handles that Node hands out, where the thread is awake; the inspector'

const kmsWorker: Attack = {
  name: 'kms-worker',
  attacker: 'H1',
  tries: `against the embedded KMS’s worker: ${TRIES}, and the memory that is left once the thread has died of an error`,
  expected: { bare: 'leaks', worker: 'stops', process: SAME },
  run: (stage) =>
    attackThreads(
      async () => {
        if (stage.level === 'bare') return bareThread(stage)
        const directory = join(stage.directory, 'kms')
        const passphrase = new TextEncoder().encode('correct horse')
        const policy = {
          platforms: [stage.platform.publicKey],
          images: [{ name: 'any', measurement: stage.image.measurement }],
        }
        await startKms({ directory, passphrase, policy, workFactor: 4 })
        // Afterwards, from custody: nobody else tells them.
        return async () => keysOf(Keyring.open(await readFile(join(directory, 'keyring.age')), Secret.take(passphrase)))
      },
      (handles) => memoryAfter(stage, handles),
    ),
}

const keysOf = (keyring: Keyring): Uint8Array[] =>
  keyring.rootKeys.map(({ privateKey }) => privateKey.expose((bytes) => Uint8Array.from(bytes)))

const poolWorker: Attack = {
  name: 'pool-worker',
  attacker: 'H1',
  tries: `against the workers of the KMS’s pool, in the thread that starts them: ${TRIES}`,
  expected: { bare: 'leaks', worker: 'stops', process: SAME },
  run: (stage) =>
    attackThreads(async () => {
      if (stage.level === 'bare') return bareThread(stage)
      const keyring = Keyring.create(nodeRandom)
      await UnsealPool.start(unsealKeys(keyring))
      return async () => keysOf(keyring)
    }),
}

export const KMS_THREAD_ATTACKS: readonly Attack[] = [kmsWorker, poolWorker]
