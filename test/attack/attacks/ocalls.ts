import { MessageChannel } from 'node:worker_threads'
import * as Comlink from 'comlink'
import { leaks, stops, STOPPED, type Attack, type Level } from '../attack.js'
import { endpointOf } from '../bare-endpoint.js'
import { outcome } from '../../enclave/target.js'

const LONG = 'longer than the ten characters that it may have'

/** Answers that are none, to a call out of the enclave. */
const WRONG: readonly unknown[] = [
  LONG,
  1,
  new Date(0),
  new Uint8Array(1024 * 1024),
  new Uint8Array(new SharedArrayBuffer(4)),
  { toString: 1 },
]

/** What bytes between processes cannot say. */
const crosses = (level: Level, value: unknown): boolean =>
  level !== 'process' ||
  !(value instanceof Date || (value instanceof Uint8Array && value.buffer instanceof SharedArrayBuffer))

const iago: Attack = {
  name: 'iago',
  attacker: 'H1',
  tries:
    'answers to a call out of the enclave: of another type, too long, huge, in shared memory, stale, twice, for another call, as a forged error',
  expected: STOPPED,
  async run(stage) {
    const victim = await stage.launch()
    const question = { question: 'why' }
    if (stage.level === 'bare') {
      const { port1, port2 } = new MessageChannel()
      Comlink.expose(() => LONG, endpointOf(port1))
      const argumentList = [
        { type: 'RAW', value: question },
        { type: 'HANDLER', name: 'proxy', value: port2 },
      ]
      const transfer = [port2] as unknown as ArrayBuffer[]
      const answer = outcome(await victim.raw({ type: 'APPLY', path: ['consult'], argumentList }, transfer))
      return answer === LONG ? leaks('whatever the host answers is believed') : stops('refused')
    }
    for (const value of WRONG) {
      const call = victim.call('consult', question)
      await victim.answer('ask', (id) => [{ id, type: 'RAW', value: crosses(stage.level, value) ? value : LONG }])
      if (!String(await call).startsWith('ERR_')) return leaks('an answer that is none is believed')
    }
    const forged = { isError: true, value: { code: 'ERR_ROLLBACK', message: LONG } }
    const refused = victim.call('consult', question)
    await victim.answer('ask', (id) => [{ id, type: 'HANDLER', name: 'throw', value: forged }])
    if ((await refused) !== 'ERR_OCALL_FAILED') return leaks('a forged error is believed')
    if ((await victim.call('total')) !== 0) return leaks('the state changed')
    let first = ''
    for (const expected of ['fine', 'better']) {
      const call = victim.call('consult', question)
      await victim.answer('ask', (id) => {
        const stale = { id: first, type: 'RAW', value: 'stale' }
        const others = ['99', '', '__proto__'].map((other) => ({ id: other, type: 'RAW', value: 'other' }))
        first ||= id
        return [stale, ...others, { id, type: 'RAW', value: expected }, { id, type: 'RAW', value: 'again' }]
      })
      if ((await call) !== expected) return leaks('an answer that is not its own is believed')
    }
    return (await victim.call('total')) === 2
      ? stops('a code for each; two right answers count twice')
      : leaks('the state changed')
  },
}

export const OCALL_ATTACKS: readonly Attack[] = [iago]
