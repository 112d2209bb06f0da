import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { MessageChannel, Worker } from 'node:worker_threads'
import test from 'ava'
import { ISOLATIONS, type Isolation } from '../../protocol/configuration.js'
import { encodeCall } from '../../protocol/calls.js'
import { buildTarget, CONFIGURATION, Host, launchTarget, withPlatform } from './target.js'

const image = buildTarget()

const wiped = (message: unknown): true | undefined => (JSON.stringify(message).includes('"wiped"') ? true : undefined)

/** Launches, lets `end` end the enclave, and tells why it ended and whether it wiped. */
const lastWords = (
  isolation: Isolation,
  end: (host: Host) => Promise<unknown>,
): Promise<{ reason: string; wiped: boolean; seen: unknown[] }> =>
  withPlatform(async (platform) => {
    const host = new Host(launchTarget(platform, await image, { isolation }))
    await host.ready()
    await end(host)
    const { reason } = await host.instance.exited
    return { reason, wiped: host.ocalls.some((message) => wiped(message) === true), seen: host.seen }
  })

for (const isolation of ISOLATIONS) {
  test(`terminate lets the enclave wipe first (${isolation})`, async (t) => {
    t.like(await lastWords(isolation, ({ instance }) => instance.terminate()), { reason: 'ended', wiped: true })
  })

  test(`terminate ends an enclave that does not listen (${isolation})`, async (t) => {
    t.like(
      await lastWords(isolation, async (host) => {
        void host.call('spin').catch(() => {})
        // A socket's messages are on their way a turn later.
        await new Promise((resolve) => setImmediate(resolve))
        return host.instance.terminate()
      }),
      { reason: 'killed', wiped: false },
    )
  })

  test(`terminate may be called again, also at once, and kill after it (${isolation})`, async (t) => {
    t.like(
      await lastWords(isolation, async ({ instance }) => {
        await Promise.all([instance.terminate(), instance.terminate()])
        await Promise.all([instance.terminate(), instance.kill()])
      }),
      { reason: 'ended', wiped: true },
    )
  })

  test(`kill wipes nothing (${isolation})`, async (t) => {
    t.like(await lastWords(isolation, ({ instance }) => instance.kill()), { reason: 'killed', wiped: false })
  })

  for (const name of ['throwLater', 'rejectLater']) {
    test(`${name}: an error that nobody handles wipes and ends, without a word (${isolation})`, async (t) => {
      const last = await lastWords(isolation, (host) => host.call(name).catch(() => {}))
      t.like(last, { reason: 'failed', wiped: true })
      t.false(JSON.stringify(last.seen).includes('secret text'))
    })
  }

  test(`process.exit wipes (${isolation})`, async (t) => {
    t.like(await lastWords(isolation, (host) => host.call('quit').catch(() => {})), { reason: 'ended', wiped: true })
  })

  test(`a flow that does not open is said as FAILED, and the enclave ends (${isolation})`, async (t) => {
    await withPlatform(async (platform) => {
      const host = new Host(launchTarget(platform, await image, { flow: 'refused', isolation }))
      t.deepEqual(await host.instance.exited, { reason: 'failed' })
      t.deepEqual(await host.find(host.seen, (message) => message), { type: 'FAILED', code: 'ERR_LAUNCH_FAILED' })
      t.is(host.seen.length, 1)
    })
  })

  test(`calls posted before READY are served after it (${isolation})`, async (t) => {
    await withPlatform(async (platform) => {
      const host = new Host(launchTarget(platform, await image, { isolation }))
      t.is(await host.call('add', { a: 1, b: 2 }), 3)
      t.deepEqual(host.seen[0], { type: 'READY' })
      await host.instance.terminate()
    })
  })
}

for (const name of ['throwLater', 'rejectLater']) {
  test(`${name}: the error is an exit code and nothing else, for whoever holds the worker`, async (t) => {
    const [ecalls, ocalls, platform] = [new MessageChannel(), new MessageChannel(), new MessageChannel()]
    const { source, measurement } = await image
    const ports = { ecalls: ecalls.port2, ocalls: ocalls.port2, platform: platform.port2 }
    ecalls.port1.postMessage(encodeCall('1', name, undefined).message)
    const worker = new Worker(source, {
      eval: true,
      stdout: true,
      stderr: true,
      workerData: { ...ports, configuration: CONFIGURATION, measurement, flow: 'flow', task: 'task' },
      transferList: Object.values(ports),
    })
    const errors: unknown[] = []
    worker.on('error', (error) => errors.push(error))
    t.is(await new Promise((resolve) => worker.on('exit', resolve)), 70)
    t.deepEqual(errors, [])
    ecalls.port1.close()
  })
}

test('an enclave that prints and fails leaves the host’s output empty', async (t) => {
  const script = fileURLToPath(new URL('./print-and-fail.js', import.meta.url))
  const { stdout, stderr } = await promisify(execFile)(process.execPath, [script])
  t.deepEqual({ stdout, stderr }, { stdout: '', stderr: '' })
})
