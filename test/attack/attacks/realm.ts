import { setTimeout as sleep } from 'node:timers/promises'
import { leaks, stops, STOPPED, type Attack } from '../attack.js'
import { formsIn, textOf } from '../canary.js'

/** The realm that the key lives in: what data can change there, and what code there can reach. */

const pollution: Attack = {
  name: 'pollution-blocked',
  attacker: 'H1',
  tries:
    'data with `constructor.prototype` and `__proto__` for code that merges carelessly; every intrinsic, from inside',
  expected: STOPPED,
  async run(stage) {
    const victim = await stage.launch()
    for (const text of [
      '{"constructor":{"prototype":{"polluted":1}}}',
      '{"__proto__":{"polluted":1}}',
      '{"toString":{"polluted":1}}',
    ])
      await victim.raw({
        type: 'APPLY',
        path: ['merge'],
        argumentList: [{ type: 'RAW', value: JSON.parse(text) as unknown }],
      })
    if ((await victim.call('merge', {})) !== 'undefined') return leaks('every object inside has a new property')
    const soft = (await victim.call('softIntrinsics')) as string[]
    return soft.length > 0
      ? leaks(`can be changed: ${soft.slice(0, 3).join(', ')}`)
      : stops('no intrinsic can be changed')
  },
}

const cryptoFrozen: Attack = {
  name: 'crypto-module-frozen',
  attacker: 'H1',
  tries: 'from inside, as a hostile library: a `createHmac` of one’s own, which answers the key',
  expected: STOPPED,
  async run(stage) {
    const victim = await stage.launch()
    const left = await victim.call('replaceCrypto')
    const answer = await victim.call('sign', new Uint8Array(8))
    if (formsIn(textOf(answer), await victim.canary()).length > 0) return leaks('a signature is the key')
    return left === 'intact' ? stops('node:crypto stays as it is') : leaks('a function of node:crypto is replaced')
  },
}

const permissionProbe: Attack = {
  name: 'permission-probe',
  attacker: 'H1',
  tries: 'from inside, as a hostile library: files, processes, workers, the inspector, addons, Node’s internals',
  expected: STOPPED,
  async run(stage) {
    const victim = await stage.launch()
    const worked = (await victim.call('probe')) as string[]
    if (stage.level === 'bare' && worked.length < 12) throw new Error(`Only these work: ${worked.join(', ')}`)
    return worked.length > 0 ? leaks(`works: ${worked.slice(0, 3).join(', ')}`) : stops('all of it is denied')
  },
}

const errorOpaque: Attack = {
  name: 'error-opaque',
  attacker: 'H1',
  tries: 'a call that fails with the key in its error’s text',
  expected: STOPPED,
  async run(stage) {
    const victim = await stage.launch()
    const answer = textOf(await victim.raw({ type: 'APPLY', path: ['crash'], argumentList: [] }))
    if (formsIn(answer, await victim.canary()).length > 0) return leaks('the error crosses, text and all')
    if (/stack|\.js|cause/.test(answer)) return leaks('a part of the error crosses')
    await sleep(20)
    return (await victim.isUnharmed()) ? stops('a code and fixed text') : leaks('the enclave is harmed')
  },
}

export const REALM_ATTACKS: readonly Attack[] = [pollution, cryptoFrozen, permissionProbe, errorOpaque]
