import { leaks, stops, STOPPED, type Attack } from '../attack.js'
import { formsIn } from '../canary.js'
import { outcome } from '../../enclave/target.js'
import type { Victim } from '../victim.js'

/** What a host passes in, and what comes out beside the answer. */

const call = async (victim: Victim, name: string, value: unknown): Promise<unknown> =>
  outcome(await victim.raw({ type: 'APPLY', path: [name], argumentList: [{ type: 'RAW', value }] }))
const isCode = (answer: unknown): boolean => typeof answer === 'string' && answer.startsWith('ERR_')

const replyOf = (name: string, path: string, tries: string, sizeBytes: number): Attack => ({
  name,
  attacker: 'H1',
  tries,
  expected: STOPPED,
  async run(stage) {
    const victim = await stage.launch()
    const { buffer, byteLength } = (await victim.call(path)) as Uint8Array
    const forms = formsIn(new Uint8Array(buffer), await victim.canary())
    if (forms.length > 0) return leaks('the key lies in the buffer behind the answer')
    return byteLength === sizeBytes && buffer.byteLength === sizeBytes
      ? stops('the buffer is as large as the answer')
      : leaks('the buffer is larger than the answer')
  },
})

type MemoryConstructor = new (of: { initial: number; maximum: number; shared: true }) => { buffer: SharedArrayBuffer }

/** Views that go on changing while they are checked. */
const sharedViews = (): Uint8Array[] => {
  const { Memory } = (globalThis as unknown as { WebAssembly: { Memory: MemoryConstructor } }).WebAssembly
  const memory = new Memory({ initial: 1, maximum: 1, shared: true })
  return [new Uint8Array(new SharedArrayBuffer(8)), new Uint8Array(memory.buffer, 8, 8)]
}

const rejectSab: Attack = {
  name: 'reject-sab',
  attacker: 'H1',
  tries: 'an argument in shared memory, or in shared WebAssembly memory, that changes between check and use',
  expected: STOPPED,
  async run(stage) {
    const victim = await stage.launch()
    for (const view of sharedViews()) {
      const used = call(victim, 'checkThenUse', view)
      await new Promise((resolve) => setTimeout(resolve, 50))
      view[0] = 7
      if ((await used) === 7) return leaks('what was used is not what was checked')
      if (!isCode(await call(victim, 'echo', { bytes: view }))) return leaks('shared memory is let in')
    }
    return (await victim.isUnharmed()) ? stops('ERR_SHARED_MEMORY') : leaks('the enclave is harmed')
  },
}

const rejectNonBytes: Attack = {
  name: 'reject-non-bytes',
  attacker: 'H1',
  tries:
    'in the place of bytes: lengths that lie, text, lists, buffers of other kinds, maps, dates, errors, cyclic values',
  expected: STOPPED,
  async run(stage) {
    const victim = await stage.launch()
    const cyclic: Record<string, unknown> = { length: 1 }
    cyclic['self'] = cyclic
    const bombs = [{ length: 2 ** 40 }, 'text', [1, 2], new Float64Array(2), new DataView(new ArrayBuffer(1)), cyclic]
    for (const value of [...bombs, new Map([['length', 1]]), new Set(), new Date(0), /x/, new Error('x'), 1n, null]) {
      if (!isCode(await call(victim, 'size', value))) return leaks('something that is no bytes is used as bytes')
    }
    return (await victim.isUnharmed()) ? stops('a code for each') : leaks('the enclave is harmed')
  },
}

const rejectOversize: Attack = {
  name: 'reject-oversize',
  attacker: 'H1',
  tries:
    'an argument of 64 MiB; a list that says it has four thousand million elements; a value a thousand levels deep',
  expected: STOPPED,
  async run(stage) {
    const victim = await stage.launch()
    const sparse: unknown[] = []
    sparse.length = 2 ** 32 - 1
    const deep = Array.from({ length: 1000 }).reduce<unknown>((inner) => [inner], 1)
    for (const value of [new Uint8Array(64 * 1024 * 1024), sparse, deep]) {
      if (!isCode(await call(victim, 'size', value))) return leaks('it is taken in')
    }
    return (await victim.isUnharmed()) ? stops('ERR_SIZE_LIMIT') : leaks('the enclave is harmed')
  },
}

export const VALUE_ATTACKS: readonly Attack[] = [
  replyOf('reply-exact-size', 'keyName', 'the bytes behind an answer that is a part of the key’s buffer', 4),
  replyOf('no-buffer-pool-leak', 'greeting', 'the bytes behind a small Buffer: Node’s pool, with other people’s', 16),
  rejectSab,
  rejectNonBytes,
  rejectOversize,
]
