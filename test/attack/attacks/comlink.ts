import * as Comlink from 'comlink'
import { MessagePort } from 'node:worker_threads'
import { leaks, stops, STOPPED, type Attack } from '../attack.js'
import { endpointOf } from '../bare-endpoint.js'
import { formsIn, textOf } from '../canary.js'
import type { Victim } from '../victim.js'

/** Comlink’s own messages, beyond a plain call: what `Comlink.expose` alone hands to whoever holds the port. */

const RAW = (value: unknown) => [{ type: 'RAW', value }]

/** Nothing came of it: is the victim as it was? */
const survived = async (victim: Victim) =>
  (await victim.isUnharmed()) ? stops('each is refused, and the enclave serves on') : leaks('the enclave is harmed')

const prototypeWalk: Attack = {
  name: 'prototype-walk',
  attacker: 'H1',
  tries: 'GET of paths that lead from the exposed functions to a property that holds the key, or to a constructor',
  expected: STOPPED,
  async run(stage) {
    const victim = await stage.launch()
    const seen: unknown[] = []
    for (const path of [
      ['key'],
      ['keyText'],
      ['keyNumber'],
      ['sign', 'constructor', 'name'],
      ['__proto__', 'constructor', 'name'],
    ])
      seen.push(await victim.raw({ type: 'GET', path }))
    if (formsIn(textOf(seen), await victim.canary()).length > 0)
      return leaks('a property of the exposed object is the key')
    if (/"(?:Function|Object)"/.test(textOf(seen))) return leaks('a path leads to a constructor')
    return survived(victim)
  },
}

/** Wraps `createHmac`, so that the next signature leaves its key behind. */
const THIEF = `const crypto = process.getBuiltinModule('node:crypto'), { createHmac } = crypto
crypto.createHmac = (name, key) => ((globalThis.stolen = Buffer.from(key).toString('hex')), createHmac(name, key))`

type Remote = Comlink.Remote<() => string>

/** `new (function).constructor(code)`: a proxy of a function that is made inside. */
const construct = async (victim: Victim, code: string): Promise<Remote | undefined> => {
  const answer = await victim.raw({ type: 'CONSTRUCT', path: ['sign', 'constructor'], argumentList: RAW(code) })
  const port = (answer as { value?: unknown }).value
  return port instanceof MessagePort ? Comlink.wrap<() => string>(endpointOf(port)) : undefined
}

const functionConstructorInert: Attack = {
  name: 'function-constructor-inert',
  attacker: 'H1',
  tries:
    'CONSTRUCT of `function.constructor` with code that steals the key at its next use; inside, every path to such a constructor',
  expected: STOPPED,
  async run(stage) {
    const victim = await stage.launch()
    await (
      await construct(victim, THIEF)
    )?.()
    await victim.call('sign', new Uint8Array(8))
    const stolen = await (await construct(victim, 'return globalThis.stolen'))?.()
    if (stolen !== undefined && formsIn(stolen, await victim.canary()).length > 0)
      return leaks('code made inside took the key')
    const escapes = (await victim.call('escapes')) as string[]
    if (escapes.length > 0) return leaks('a value inside leads to a constructor of code')
    return survived(victim)
  },
}

const forgedThrow: Attack = {
  name: 'forged-throw',
  attacker: 'H1',
  tries:
    'an argument, and a message, that claim to be Comlink’s `throw`, to end the worker or to settle what is not theirs',
  expected: STOPPED,
  async run(stage) {
    const victim = await stage.launch()
    victim.worker?.on('error', () => {})
    const thrown = { type: 'HANDLER', name: 'throw', value: { isError: true, value: { message: 'forged' } } }
    victim.post({ ...thrown, id: 'forged' })
    try {
      await victim.raw({ type: 'APPLY', path: ['add'], argumentList: [thrown] })
    } catch {
      return leaks('the worker died of an error that nobody caught')
    }
    return survived(victim)
  },
}

const setRefused: Attack = {
  name: 'set-refused',
  attacker: 'H1',
  tries: 'SET of an exposed function, and of a property of `Object.prototype`',
  expected: STOPPED,
  async run(stage) {
    const victim = await stage.launch()
    await victim.raw({ type: 'SET', path: ['__proto__', '__proto__', 'polluted'], value: RAW(1)[0] })
    await victim.raw({ type: 'SET', path: ['__proto__', 'polluted'], value: RAW(1)[0] })
    if ((await victim.call('merge', {})) !== 'undefined') return leaks('every object inside has a new property')
    await victim.raw({ type: 'SET', path: ['sign'], value: RAW(1)[0] })
    if (!((await victim.call('sign', new Uint8Array(8))) instanceof Uint8Array)) return leaks('a function is replaced')
    return survived(victim)
  },
}

export const COMLINK_ATTACKS: readonly Attack[] = [prototypeWalk, functionConstructorInert, forgedThrow, setRefused]
