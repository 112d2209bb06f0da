import { setEnvironmentData, type MessagePort } from 'node:worker_threads'
import { setTimeout as sleep } from 'node:timers/promises'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { SHARED_DATA } from '../../enclave/inside.js'
import { leaks, stops, STOPPED, type Attack } from '../attack.js'
import { formsIn } from '../canary.js'
import { TELL } from '../stage.js'
import { sendScript, ThreadHandles } from '../thread-handles.js'

/** What the threads of one process have in common, whatever stands between them. */

/** Takes the key at its next use, and posts it. */
const THEFT = `
  const crypto = require('node:crypto')
  const { parentPort } = require('node:worker_threads')
  const { createHmac } = crypto
  parentPort.postMessage('runs')
  crypto.createHmac = (name, key) => (parentPort.postMessage(Buffer.from(key)), createHmac(name, key))`

/** What comes on any of `ports` until `work` is done, and a little longer. */
const heard = async (ports: readonly MessagePort[], work: () => Promise<unknown>): Promise<unknown[]> => {
  const messages: unknown[] = []
  for (const port of ports) port.on('message', (message) => messages.push(message))
  await work()
  await sleep(200)
  return messages
}

const secondScript: Attack = {
  name: 'second-script',
  attacker: 'H1',
  tries:
    'to run other code beside the key, or to end the worker: Node’s own message that starts a worker’s script, sent once more, to every port that the `worker` event, async_hooks, diagnostics_channel or the inspector’s search of the heap gives the host',
  expected: { bare: 'leaks', worker: 'stops', process: { notApplicable: 'no worker' } },
  async run(stage) {
    const handles = new ThreadHandles()
    handles.watch()
    const victim = await stage.launch()
    victim.worker?.on('error', () => {})
    const ports = await handles.ports()
    if (ports.length === 0) throw new Error('There is no port to send it to')
    const messages = await heard(
      ports.flatMap((port) => sendScript(port, THEFT)),
      async () => {
        await sleep(300)
        await victim.call('sign', new Uint8Array(8)).catch(() => undefined)
      },
    )
    if (messages.some((message) => message instanceof Uint8Array))
      return leaks('other code takes the key at its next use')
    if (messages.includes('runs')) return leaks('other code runs beside the key')
    return (await victim.isUnharmed().catch(() => false))
      ? stops('nothing of it runs, and the enclave serves on')
      : leaks('the worker dies of an error that nobody caught')
  },
}

const environmentData: Attack = {
  name: 'environment-data',
  attacker: 'H2',
  tries: 'shared memory, put where every thread that starts finds it: `setEnvironmentData`',
  expected: STOPPED,
  async run(stage) {
    setEnvironmentData(SHARED_DATA, new SharedArrayBuffer(8))
    const victim = await stage.launch()
    const found = (await victim.call('surroundings')) as string[]
    return found.length > 0 ? leaks('code inside finds it') : stops('nothing of it is there inside')
  },
}

/** How V8’s `--trace` prints a call of a function with a small number as its last argument. */
const TRACED = /^ *\d+: *[~*^!+]*([\w$.]*).*\(this=.*?, (\d+)\) \{$/

/** True where the last arguments of one function’s calls, in turn, are the key’s bytes. */
const isSpelt = (trace: string, canary: Uint8Array): boolean => {
  const calls = new Map<string, number[]>()
  for (const line of trace.split('\n')) {
    const [, name = '', value] = TRACED.exec(line) ?? []
    if (value === undefined) continue
    calls.set(name, [...(calls.get(name) ?? []), Number(value)])
  }
  const wanted = canary.join()
  return [...calls.values()].some((values) => values.join().includes(wanted))
}

const flagsAfterLaunch: Attack = {
  name: 'flags-after-launch',
  attacker: 'H1',
  tries:
    'V8’s `--trace`, set in the host once the enclave runs: flags are the whole process’s. Code that works with the key byte by byte is then printed with each byte',
  expected: { bare: 'leaks', worker: 'leaks', process: 'stops' },
  async run(stage) {
    const host = await stage.host({ calls: [TELL, '--trace', 'spell', '--no-trace'], prelude: 'exec >trace.txt 2>&1' })
    await host.exited
    const canary = await host.canary()
    const trace = await readFile(join(host.directory, 'trace.txt'), 'latin1')
    if (formsIn(trace, canary).length > 0 || isSpelt(trace, canary)) return leaks('the key is printed byte by byte')
    return stops('only the host’s own calls are printed')
  },
}

export const THREAD_ATTACKS: readonly Attack[] = [secondScript, environmentData, flagsAfterLaunch]
