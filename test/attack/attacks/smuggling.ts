import { createSecretKey, generateKeyPairSync } from 'node:crypto'
import { BlockList } from 'node:net'
import { createHistogram } from 'node:perf_hooks'
import { setTimeout as sleep } from 'node:timers/promises'
import { MessageChannel, type Transferable } from 'node:worker_threads'
import * as Comlink from 'comlink'
import { outcome } from '../../enclave/target.js'
import { leaks, stops, STOPPED, type Attack } from '../attack.js'
import { endpointOf } from '../bare-endpoint.js'
import type { Victim } from '../victim.js'

/** Arguments that are more than data, or more of them than there is room for. */

/** Longer than any answer takes: what has none by then has none. */
const ANSWER_MS = 5_000

const answerTo = async (
  victim: Victim,
  path: string,
  argument: object,
  transfer: readonly Transferable[] = [],
): Promise<unknown> => {
  const message = { type: 'APPLY', path: [path], argumentList: [argument] }
  const answered = victim.raw(message, transfer as readonly ArrayBuffer[]).then(outcome)
  return Promise.race([answered, sleep(ANSWER_MS, undefined, { ref: false })])
}

const isCode = (answer: unknown): boolean => typeof answer === 'string' && answer.startsWith('ERR_')

/** Objects of Node’s that a message can carry, each with what has to be transferred. */
const carried = (): Readonly<Record<string, readonly [unknown, ...Transferable[]]>> => {
  const { port1, port2 } = new MessageChannel()
  const stream = new ReadableStream()
  const { publicKey } = generateKeyPairSync('ed25519')
  const { WebAssembly } = globalThis as unknown as { WebAssembly: { Module: new (code: Uint8Array) => object } }
  return {
    'a MessagePort': [port1, port1],
    'a port in an object': [{ inner: [port2] }, port2],
    'a stream': [stream, stream],
    'a secret KeyObject': [createSecretKey(new Uint8Array(32))],
    'a public KeyObject': [publicKey],
    'a Blob': [new Blob(['x'])],
    'a BlockList': [new BlockList()],
    'a Histogram': [createHistogram()],
    'a WebAssembly module': [new WebAssembly.Module(Uint8Array.of(0, 97, 115, 109, 1, 0, 0, 0))],
    'a boxed number': [Object(1)],
    'a boxed text': [{ text: Object('x') as unknown }],
    'an error with a cause': [new Error('x', { cause: new Map() })],
  }
}

const livingArguments: Attack = {
  name: 'living-arguments',
  attacker: 'H1',
  tries:
    'in the place of data: ports, streams, keys, blobs, compiled WebAssembly and other objects of Node’s that a message can carry, transferred where they must be',
  expected: STOPPED,
  async run(stage) {
    const victim = await stage.launch()
    for (const [name, [value, ...transfer]] of Object.entries(carried())) {
      const answer = await answerTo(victim, 'kind', { type: 'RAW', value }, transfer)
      if (answer === undefined) return leaks(`no answer to ${name}`)
      if (!isCode(answer)) return leaks(`${name} is let in`)
    }
    return (await victim.isUnharmed()) ? stops('a code for each') : leaks('the enclave is harmed')
  },
}

const proxyArgument: Attack = {
  name: 'proxy-argument',
  attacker: 'H1',
  tries:
    'Comlink’s proxy in the place of data, which asks the host for every property when it is looked at: what was checked is not what is used',
  expected: STOPPED,
  async run(stage) {
    const victim = await stage.launch()
    let askedCount = 0
    const { port1, port2 } = new MessageChannel()
    port1.on('message', () => askedCount++)
    Comlink.expose({ length: 7 }, endpointOf(port1))
    const answer = await answerTo(victim, 'measure', { type: 'HANDLER', name: 'proxy', value: port2 }, [port2])
    if (askedCount > 0) return leaks('code inside asks the host what its argument is')
    if (!isCode(answer)) return leaks('a proxy is let in')
    return (await victim.isUnharmed())
      ? stops('ERR_MESSAGE_INVALID, and nothing is asked')
      : leaks('the enclave is harmed')
  },
}

type Resizable = new (size: number, options: { maxByteLength: number }) => ArrayBuffer & { resize(size: number): void }
type Growable = new (
  size: number,
  options: { maxByteLength: number },
) => SharedArrayBuffer & { grow(size: number): void }
const SPARE_SIZE_BYTES = 1024 * 1024

const resizableBuffers: Attack = {
  name: 'resizable-buffers',
  attacker: 'H1',
  tries:
    'views that follow the length of their buffer: of shared memory that grows between check and use, of a buffer with a megabyte to spare, of one that shrank below the view',
  expected: STOPPED,
  async run(stage) {
    const victim = await stage.launch()
    const shared = new (SharedArrayBuffer as unknown as Growable)(0, { maxByteLength: SPARE_SIZE_BYTES })
    const used = answerTo(victim, 'checkThenUse', { type: 'RAW', value: new Uint8Array(shared) })
    await sleep(50)
    shared.grow(8)
    new Uint8Array(shared).fill(7)
    if ((await used) === 7) return leaks('what was used is not what was checked')
    const spare = new (ArrayBuffer as unknown as Resizable)(8, { maxByteLength: SPARE_SIZE_BYTES })
    const echoed = await answerTo(victim, 'echo', { type: 'RAW', value: { bytes: new Uint8Array(spare) } })
    const { bytes } = echoed as { bytes: Uint8Array<ArrayBuffer & { resizable?: boolean }> }
    if (bytes.length !== 8 || bytes.buffer.byteLength !== 8 || bytes.buffer.resizable === true)
      return leaks('the answer’s buffer can grow')
    const shrunk = new (ArrayBuffer as unknown as Resizable)(16, { maxByteLength: 16 })
    const beyond = new Uint8Array(shrunk, 8, 8)
    shrunk.resize(4)
    const size = await answerTo(victim, 'size', { type: 'RAW', value: beyond })
    if (size !== 0 && !isCode(size)) return leaks('a view beyond its buffer has a size')
    return (await victim.isUnharmed()) ? stops('a code, or a copy of fixed length') : leaks('the enclave is harmed')
  },
}

const FLOOD_COUNT = 5_000
/** protocol/limits.ts. */
const IN_FLIGHT_MAX = 1024

const callFlood: Attack = {
  name: 'call-flood',
  attacker: 'H1',
  tries: 'five thousand calls that never end, to have the enclave hold them all',
  expected: STOPPED,
  async run(stage) {
    const victim = await stage.launch()
    for (let count = 0; count < FLOOD_COUNT; count++)
      victim.post({ id: String(count), type: 'APPLY', path: ['hang'], argumentList: [] })
    // Answered after those before it.
    const last = await victim.call('total')
    const refusedCount = victim.seen.filter((answer) => outcome(answer) === 'ERR_CALLS_LIMIT').length
    if (refusedCount < FLOOD_COUNT - IN_FLIGHT_MAX) return leaks('it holds more than a thousand at once')
    return last === 'ERR_CALLS_LIMIT'
      ? stops('ERR_CALLS_LIMIT beyond 1,024, and a code for each')
      : leaks('another answer')
  },
}

export const SMUGGLING_ATTACKS: readonly Attack[] = [livingArguments, proxyArgument, resizableBuffers, callFlood]
