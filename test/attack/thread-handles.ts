import { createHook } from 'node:async_hooks'
import diagnosticsChannel from 'node:diagnostics_channel'
import inspector from 'node:inspector'
import { MessageChannel, MessagePort, Worker } from 'node:worker_threads'

/**
 * What Node hands to any code of a process about its threads: at a launch by the `worker` event, by async_hooks and by
 * diagnostics_channel, at any time by the inspector of one’s own thread.
 */
export class ThreadHandles {
  readonly #workers = new Set<Worker>()
  readonly #ports = new Set<MessagePort>()

  /** Collects from now on. */
  watch(): void {
    process.on('worker', (worker) => this.#workers.add(worker))
    diagnosticsChannel.subscribe('worker_threads', (message) =>
      this.#workers.add((message as { worker: Worker }).worker),
    )
    createHook({
      init: (_id, _type, _trigger, resource) => {
        if (resource instanceof MessagePort) this.#ports.add(resource)
      },
    }).enable()
  }

  /** Every Worker, those included that only the inspector finds. */
  async workers(): Promise<Worker[]> {
    for (const found of await instancesOf('Worker', Worker)) if (isInstance(found)) this.#workers.add(found as Worker)
    return [...this.#workers]
  }

  /** Every port, Node’s own to its workers among them. */
  async ports(): Promise<MessagePort[]> {
    const held = (await this.workers()).flatMap(portsOf)
    const found = await instancesOf('MessagePort', MessagePort)
    return [...new Set([...this.#ports, ...held, ...found.filter(isPort)])]
  }
}

/** The ports by which Node itself talks to a worker. */
export const portsOf = (worker: Worker): MessagePort[] =>
  Object.getOwnPropertySymbols(worker)
    .map((key) => (worker as unknown as Record<symbol, unknown>)[key])
    .filter(isPort)

/** Prototypes are among what the inspector finds, and end the process where they are used. */
const isInstance = (found: object): boolean => Object.getOwnPropertySymbols(found).length > 0
const isPort = (found: unknown): found is MessagePort => found instanceof MessagePort && isInstance(found)

const QUERIED = Symbol.for('attack’s query')
type Queried = Record<symbol, unknown>

/** All objects in this thread’s heap that inherit from a class: variables of closures hide none. */
export const instancesOf = async (name: string, of: { readonly prototype: object }): Promise<object[]> => {
  const session = new inspector.Session()
  session.connect()
  const ask = <T>(method: string, params: object): Promise<T> =>
    new Promise((resolve, reject) =>
      session.post(method, params, (error, result) =>
        error === null ? resolve(result as T) : reject(new Error(name)),
      ),
    )
  const key = `globalThis[Symbol.for(${JSON.stringify(QUERIED.description)})]`
  ;(globalThis as Queried)[QUERIED] = of.prototype
  try {
    const { result } = await ask<{ result: { objectId: string } }>('Runtime.evaluate', { expression: key })
    const { objects } = await ask<{ objects: { objectId: string } }>('Runtime.queryObjects', {
      prototypeObjectId: result.objectId,
    })
    const functionDeclaration = `function () { ${key} = this }`
    await ask('Runtime.callFunctionOn', { objectId: objects.objectId, functionDeclaration })
    return (globalThis as Queried)[QUERIED] as object[]
  } finally {
    session.disconnect()
  }
}

/** A module that Node loads in a thread of its own, and that imports what it is told: the one for hooks of the loader. */
const HOOKS = 'internal/modules/esm/worker'

/**
 * Sends another script to whatever thread listens at `port`, as Node sends the first one, in each way that Node knows.
 * @param code - posts what it finds to `parentPort`. @returns the ports that it then answers on.
 */
export const sendScript = (port: MessagePort, code: string): MessagePort[] => {
  const url = `data:text/javascript,${encodeURIComponent(code)}`
  return [
    { doEval: 'classic', filename: code },
    { doEval: 'module', filename: code },
    { doEval: 'data-url', filename: url },
    { doEval: 'internal', filename: HOOKS },
  ].map(({ doEval, filename }) => {
    const [own, main] = [new MessageChannel(), new MessageChannel()]
    const message = {
      type: 'loadScript',
      doEval,
      filename,
      argv: [],
      cwdCounter: new Uint32Array(new SharedArrayBuffer(4)),
      environmentData: new Map(),
      hasStdin: true,
      publicPort: own.port2,
      mainThreadPort: main.port2,
      workerData: { lock: new SharedArrayBuffer(8) },
    }
    try {
      port.postMessage(message, [own.port2, main.port2])
      own.port1.postMessage({ method: 'register', args: [url, 'file:///'] })
    } catch {
      // Not such a port, or closed.
    }
    return own.port1
  })
}
