import inspector from 'node:inspector'
import type { Readable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { getHeapSnapshot } from 'node:v8'
import { Worker } from 'node:worker_threads'
import { leaks, stops, STOPPED, type Attack } from '../attack.js'
import { formsIn } from '../canary.js'

/** The engine’s own tools, in the hands of code in the host. */

const readAll = async (stream: Readable): Promise<Buffer> => {
  const chunks: Buffer[] = []
  for await (const chunk of stream) chunks.push(chunk as Buffer)
  return Buffer.concat(chunks)
}

/** The prototype’s own: a handle’s may be replaced. */
const prototypeSnapshot = Object.getOwnPropertyDescriptor(Worker.prototype, 'getHeapSnapshot')?.value as (
  this: Worker,
  options: { readonly exposeNumericValues: true },
) => Promise<Readable>

const heapSnapshot: Attack = {
  name: 'heap-snapshot-no-key',
  attacker: 'H1',
  tries:
    'heap snapshots of the host and of the enclave’s worker, of which Node’s `worker` event hands out the handle at a relaunch',
  expected: STOPPED,
  async run(stage) {
    const handles: Worker[] = []
    // What a host’s code does before a relaunch is done before a launch.
    process.on('worker', (handle) => handles.push(handle))
    const victim = await stage.launch()
    await victim.call('sign', new Uint8Array(8))
    if (stage.level !== 'process' && handles.length === 0) throw new Error('There is no handle to take a snapshot with')
    const snapshots = [await readAll(getHeapSnapshot())]
    for (const handle of handles) {
      const taken = prototypeSnapshot.call(handle, { exposeNumericValues: true })
      snapshots.push(await readAll(await taken))
    }
    const canary = await victim.canary()
    const forms = snapshots.flatMap((snapshot) => formsIn(snapshot, canary))
    return forms.length > 0
      ? leaks(`the worker’s heap has the key as ${forms.join(', ')}`)
      : stops('no form of the key is in a heap')
  },
}

/** Talks to every worker that the inspector’s NodeWorker domain attaches to. */
class WorkerSessions {
  readonly #session = new inspector.Session()
  readonly #answers = new Map<number, (result: unknown) => void>()
  readonly ids: string[] = []
  #count = 0

  constructor() {
    this.#session.connect()
    this.#session.on('NodeWorker.attachedToWorker', (event) => this.ids.push(event.params.sessionId))
    this.#session.on('NodeWorker.receivedMessageFromWorker', (event) => {
      const { id, result } = JSON.parse(event.params.message) as { id: number; result: unknown }
      this.#answers.get(id)?.(result)
    })
  }

  async attach(): Promise<void> {
    this.#session.post('NodeWorker.enable' as never, { waitForDebuggerOnStart: false } as never)
    await sleep(300)
  }

  ask(
    sessionId: string,
    method: string,
    params: unknown,
  ): Promise<Record<string, { objectId: string; value: unknown }>> {
    const id = ++this.#count
    const message = JSON.stringify({ id, method, params })
    return new Promise((resolve) => {
      // First, because it may be answered before it is posted.
      this.#answers.set(id, resolve as (result: unknown) => void)
      this.#session.post('NodeWorker.sendMessageToWorker' as never, { sessionId, message } as never)
    })
  }
}

const HEX_OF_ALL =
  'function () { return this.filter((a) => ArrayBuffer.isView(a) && a.length === 32).map((a) => Buffer.from(a).toString("hex")).join() }'

const nodeWorkerAttach: Attack = {
  name: 'nodeworker-attach-denied',
  attacker: 'H1',
  tries: 'attaching to the worker by the inspector’s NodeWorker domain, and reading every array of bytes in it',
  expected: STOPPED,
  async run(stage) {
    const victim = await stage.launch()
    const sessions = new WorkerSessions()
    await sessions.attach()
    // A thread that sleeps does not hear the inspector.
    const wake = setInterval(() => void victim.call('total'), 50)
    let seen = ''
    for (const id of sessions.ids) {
      await sessions.ask(id, 'Runtime.enable', {})
      const { result } = await sessions.ask(id, 'Runtime.evaluate', { expression: 'Uint8Array.prototype' })
      const { objects } = await sessions.ask(id, 'Runtime.queryObjects', { prototypeObjectId: result?.objectId })
      const { result: all } = await sessions.ask(id, 'Runtime.callFunctionOn', {
        objectId: objects?.objectId,
        functionDeclaration: HEX_OF_ALL,
        returnByValue: true,
      })
      seen += String(all?.value)
    }
    clearInterval(wake)
    if (formsIn(seen, await victim.canary()).length > 0) return leaks('the key is read out of its array')
    if (stage.level === 'bare') throw new Error('The key is not found in a worker that can be inspected')
    return sessions.ids.length === 0 ? stops('no worker to attach to') : leaks('the inspector attaches')
  },
}

const connectToMainThread: Attack = {
  name: 'connect-to-main-thread-denied',
  attacker: 'H1',
  tries: 'from inside: an inspector on its own thread, and on the host’s',
  expected: STOPPED,
  async run(stage) {
    const victim = await stage.launch()
    const worked = (await victim.call('probe')) as string[]
    return worked.some((name) => name.startsWith('inspect')) ? leaks('it attaches') : stops('refused')
  },
}

export const INSPECTOR_ATTACKS: readonly Attack[] = [heapSnapshot, nodeWorkerAttach, connectToMainThread]
