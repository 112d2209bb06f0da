import { createHmac, createSecretKey } from 'node:crypto'
import { MessageChannel } from 'node:worker_threads'
import test from 'ava'
import * as Comlink from 'comlink'
import { ISOLATIONS, type Isolation } from '../../protocol/configuration.js'
import { buildTarget, Host, launchTarget, outcome, withPlatform } from './target.js'

const image = buildTarget()

/** Runs an attack at each level, then proves that the enclave lives and that its state is as before. */
const survives = (
  title: string,
  attack: (host: Host, is: (code: unknown, expected: string) => void, isolation: Isolation) => Promise<void> | void,
): void => {
  for (const isolation of ISOLATIONS) {
    test(`${title} (${isolation})`, async (t) => {
      await withPlatform(async (platform) => {
        const host = new Host(launchTarget(platform, await image, { isolation }))
        await host.ready()
        t.is(await host.call('increment'), 1)
        await attack(host, (code, expected) => t.is(code, expected), isolation)
        t.is(await host.call('total'), 1)
        t.is(await host.call('add', { a: 2, b: 3 }), 5)
        t.is(host.ocalls.length, 0)
        await host.instance.terminate()
      })
    })
  }
}

const raw = (value: unknown) => [{ type: 'RAW', value }]
const apply = (path: unknown, argumentList: unknown = []) => ({ type: 'APPLY', path, argumentList })

survives('an ECALL that is not declared is refused', async (host, is) => {
  for (const name of ['missing', 'constructor', '__proto__', 'toString', 'hasOwnProperty', 'then', 'valueOf'])
    is(await host.call(name), 'ERR_ECALL_UNKNOWN')
})

survives('Comlink messages other than a plain call are refused', async (host, is) => {
  for (const type of [
    'GET',
    'SET',
    'CONSTRUCT',
    'ENDPOINT',
    'RELEASE',
    'RAW',
    'HANDLER',
    'apply',
    '',
    7,
    null,
    undefined,
  ]) {
    is(
      outcome(await host.raw({ type, path: ['increment'], argumentList: [], value: raw(1)[0] })),
      'ERR_MESSAGE_INVALID',
    )
  }
})

survives('a path other than one name is refused', async (host, is, isolation) => {
  for (const path of [
    [],
    ['increment', 'constructor'],
    ['constructor', 'constructor'],
    [['increment']],
    [1],
    [null],
    'increment',
    { 0: 'increment', length: 1 },
    undefined,
    [''],
    ['x'.repeat(65)],
    // A socket carries no holes.
    ...(isolation === 'worker' ? [new Array(1)] : []),
  ]) {
    is(outcome(await host.raw(apply(path))), 'ERR_MESSAGE_INVALID')
  }
})

survives('arguments other than one raw value are refused', async (host, is) => {
  is(outcome(await host.raw({ type: 'APPLY', path: ['increment'] })), 'ERR_MESSAGE_INVALID')
  const { port1, port2 } = new MessageChannel()
  for (const argumentList of [
    [...raw(1), ...raw(2)],
    [{ type: 'HANDLER', name: 'throw', value: { isError: false, value: 1 } }],
    [{ type: 'HANDLER', name: 'proxy', value: 1 }],
    [1],
    [null],
    'x',
    { length: 0 },
    null,
  ]) {
    is(outcome(await host.raw(apply(['increment'], argumentList))), 'ERR_MESSAGE_INVALID')
  }
  const id = 'port'
  host.post({ id, ...apply(['increment'], raw(port1)) }, [port1 as unknown as ArrayBuffer])
  is(
    outcome(await host.find(host.seen, (m) => ((m as { id?: unknown }).id === id ? m : undefined))),
    'ERR_VALUE_UNSUPPORTED',
  )
  port2.close()
})

survives('messages that are not even objects, or have no usable id, harm nobody', (host) => {
  for (const message of [
    null,
    undefined,
    0,
    'READY',
    [],
    { id: {} },
    { id: '' },
    { id: 'x'.repeat(65) },
    { type: 'FAILED', code: 'ERR_ROLLBACK' },
    new Map([['id', 'x']]),
    new Error('x'),
    createSecretKey(new Uint8Array(16)),
  ])
    host.post(message)
})

survives('a forged throw is a message like any other', async (host, is) => {
  is(
    outcome(await host.raw({ type: 'HANDLER', name: 'throw', value: { isError: true, value: { message: 'x' } } })),
    'ERR_MESSAGE_INVALID',
  )
})

survives('values of other types are refused, whatever the schema says', async (host, is) => {
  const cyclic: unknown[] = []
  cyclic.push(cyclic)
  const deep = Array.from({ length: 40 }).reduce<unknown>((inner) => [inner], 1)
  for (const value of [
    new Map(),
    new Set(),
    new Date(0),
    /x/,
    new Error('x'),
    1n,
    NaN,
    Infinity,
    new ArrayBuffer(8),
    new Float64Array(2),
    new DataView(new ArrayBuffer(1)),
    new Number(1),
    [undefined],
    [new Date(0)],
    new Array(3),
  ]) {
    is(outcome(await host.raw(apply(['merge'], raw(value)))), 'ERR_VALUE_UNSUPPORTED')
  }
  is(outcome(await host.raw(apply(['merge'], raw(cyclic)))), 'ERR_SIZE_LIMIT')
  is(outcome(await host.raw(apply(['merge'], raw(deep)))), 'ERR_SIZE_LIMIT')
})

survives('shared memory is refused wherever it hides', async (host, is) => {
  const shared = new SharedArrayBuffer(8)
  for (const value of [
    shared,
    new Uint8Array(shared),
    { bytes: new Uint8Array(shared) },
    [[new Uint8Array(shared, 2, 2)]],
  ]) {
    is(outcome(await host.raw(apply(['echo'], raw(value)))), 'ERR_SHARED_MEMORY')
  }
})

survives('what is too large is refused before it is copied', async (host, is) => {
  const sparse: unknown[] = []
  sparse.length = 2 ** 32 - 1
  for (const value of [
    new Uint8Array(64 * 1024 + 1),
    'x'.repeat(40_000),
    { bytes: [new Uint8Array(40_000), new Uint8Array(40_000)] },
    sparse,
    Array.from({ length: 20_000 }, () => 0),
  ]) {
    is(outcome(await host.raw(apply(['echo'], raw(value)))), 'ERR_SIZE_LIMIT')
  }
})

survives('a value of the wrong shape is refused by the declared schema', async (host, is) => {
  for (const value of [undefined, null, 1, 'x', {}, { a: 1 }, { a: 1, b: '2' }, [1, 2], new Uint8Array(2)])
    is(await host.call('add', value), 'ERR_ARGUMENT_INVALID')
})

survives('prototype pollution by data reaches nothing', async (host, is) => {
  is(await host.call('merge', JSON.parse('{"constructor": {"prototype": {"polluted": 1}}}')), 'undefined')
  is(await host.call('merge', { toString: { polluted: 1 }, hasOwnProperty: { call: { polluted: 1 } } }), 'undefined')
  is(
    outcome(await host.raw(apply(['merge'], raw(JSON.parse('{"__proto__": {"polluted": 1}}'))))),
    'ERR_VALUE_UNSUPPORTED',
  )
})

survives('errors leave as a code and fixed text', async (host, is) => {
  const answers = [
    host.raw(apply(['crash'])),
    host.raw(apply(['forged'])),
    host.raw(apply(['undeclared'])),
    host.raw(apply(['badOutput'])),
    host.raw(apply(['closed'])),
  ]
  const codes = ['ERR_ENCLAVE_FAILED', 'ERR_STORE_FULL', 'ERR_ENCLAVE_FAILED', 'ERR_REPLY_INVALID', 'ERR_APPLICATION']
  for (const [index, answer] of (await Promise.all(answers)).entries()) {
    is(outcome(answer), codes[index] ?? '')
    is(/secret text|stack|\.js|cause/.exec(JSON.stringify(answer))?.[0], undefined as unknown as string)
  }
  is(JSON.stringify(await answers[4]).includes('The office is closed'), true as unknown as string)
})

for (const isolation of ISOLATIONS) {
  test(`1,024 calls may be in flight and no more (${isolation})`, async (t) => {
    await withPlatform(async (platform) => {
      const host = new Host(launchTarget(platform, await image, { isolation }))
      await host.ready()
      for (let count = 0; count < 1024; count++) host.instance.ecalls.post({ id: `x${count}`, ...apply(['hang']) })
      t.is(await host.call('add', { a: 1, b: 1 }), 'ERR_CALLS_LIMIT')
      await host.instance.terminate()
    })
  })
}

survives('two calls under one id get an answer each', async (host, is) => {
  const id = 'twice'
  host.instance.ecalls.post({ id, ...apply(['add'], raw({ a: 1, b: 1 })) })
  host.instance.ecalls.post({ id, ...apply(['add'], raw({ a: 2, b: 2 })) })
  const both = await host.find(host.seen, () => {
    const values = host.seen.filter((m) => (m as { id?: unknown }).id === id).map(outcome)
    return values.length === 2 ? values : undefined
  })
  is(JSON.stringify(both), '[2,4]')
})

survives('replies are exact copies in a buffer of their own', async (host, is) => {
  const view = (await host.call('smallView')) as Uint8Array
  is(`${view.byteLength} of ${view.buffer.byteLength}`, '16 of 16')
  const part = (await host.call('keyPart')) as Uint8Array
  is(`${part.byteLength} of ${part.buffer.byteLength}`, '4 of 4')
  const { bytes } = (await host.call('echo', { bytes: Buffer.from('abc') })) as { bytes: Uint8Array }
  is(`${bytes.byteLength} of ${bytes.buffer.byteLength}`, '3 of 3')
})

survives('a field that the output schema does not name stays inside', async (host, is) => {
  is(JSON.stringify(await host.call('extraField')), '{"shown":1}')
})

test('bare Comlink hands over what the gate refuses', async (t) => {
  const { port1, port2 } = new MessageChannel()
  Comlink.expose({ add: () => createHmac('sha256', 'x') }, port2)
  const api = Comlink.wrap(port1) as unknown as {
    add: { constructor: new (code: string) => PromiseLike<Comlink.ProxyMethods & (() => Promise<number>)> }
  }
  const made = await new api.add.constructor('return 6 * 7')
  t.is(await made(), 42)
  made[Comlink.releaseProxy]()
  port1.close()
})

for (const isolation of ISOLATIONS) {
  test(`Comlink.wrap works against the gate, and is refused like anybody (${isolation})`, async (t) => {
    await withPlatform(async (platform) => {
      const instance = launchTarget(platform, await image, { isolation })
      const { ecalls } = instance
      const listeners: ((event: { data: unknown }) => void)[] = []
      ecalls.onMessage((data) => listeners.forEach((listen) => listen({ data })))
      const endpoint = {
        postMessage: (message: unknown, transfer: ArrayBuffer[]) => ecalls.post(message, transfer),
        addEventListener: (_: string, listen: (event: { data: unknown }) => void) => listeners.push(listen),
        removeEventListener: () => {},
      } as unknown as Comlink.Endpoint
      const api = Comlink.wrap(endpoint) as unknown as {
        add(sum: { a: number; b: number }): Promise<number>
        closed(): Promise<never>
        missing: { deep(): Promise<never> }
      } & (new () => Promise<never>)
      t.is(await api.add({ a: 20, b: 22 }), 42)
      t.like(await t.throwsAsync(api.closed()), {
        code: 'ERR_APPLICATION',
        reason: 'not-today',
        message: 'The enclave refused the call: The office is closed',
      })
      await t.throwsAsync(api.missing.deep(), { code: 'ERR_MESSAGE_INVALID' })
      await t.throwsAsync(async () => new api(), { code: 'ERR_MESSAGE_INVALID' })
      await instance.terminate()
    })
  })
}
