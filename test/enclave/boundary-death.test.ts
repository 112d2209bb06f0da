import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { MessageChannel, Worker } from 'node:worker_threads'
import test from 'ava'
import { encodeCall } from '../../protocol/calls.js'
import { buildTarget, CONFIGURATION, Host, launchTarget, withPlatform } from './target.js'

const image = buildTarget()

const wiped = (message: unknown): true | undefined => (JSON.stringify(message).includes('"wiped"') ? true : undefined)

/** Launches, lets `end` end the enclave, and tells why it ended and whether it wiped. */
const lastWords = (
  end: (host: Host) => Promise<unknown>,
): Promise<{ reason: string; wiped: boolean; seen: unknown[] }> =>
  withPlatform(async (platform) => {
    const host = new Host(launchTarget(platform, await image))
    await host.ready()
    await end(host)
    const { reason } = await host.instance.exited
    return { reason, wiped: host.ocalls.some((message) => wiped(message) === true), seen: host.seen }
  })

test('terminate lets the enclave wipe first', async (t) => {
  t.like(await lastWords(({ instance }) => instance.terminate()), { reason: 'ended', wiped: true })
})

test('terminate ends an enclave that does not listen', async (t) => {
  t.like(
    await lastWords((host) => {
      void host.call('spin').catch(() => {})
      return host.instance.terminate()
    }),
    { reason: 'killed', wiped: false },
  )
})

test('terminate may be called again, also at once, and kill after it', async (t) => {
  t.like(
    await lastWords(async ({ instance }) => {
      await Promise.all([instance.terminate(), instance.terminate()])
      await Promise.all([instance.terminate(), instance.kill()])
    }),
    { reason: 'ended', wiped: true },
  )
})

test('kill wipes nothing', async (t) => {
  t.like(await lastWords(({ instance }) => instance.kill()), { reason: 'killed', wiped: false })
})

for (const name of ['throwLater', 'rejectLater']) {
  test(`${name}: an error that nobody handles wipes and ends, without a word`, async (t) => {
    const last = await lastWords((host) => host.call(name).catch(() => {}))
    t.like(last, { reason: 'failed', wiped: true })
    t.false(JSON.stringify(last.seen).includes('secret text'))
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

test('process.exit wipes', async (t) => {
  t.like(await lastWords((host) => host.call('quit').catch(() => {})), { reason: 'ended', wiped: true })
})

test('a flow that does not open is said as FAILED, and the enclave ends', async (t) => {
  await withPlatform(async (platform) => {
    const host = new Host(launchTarget(platform, await image, 'refused'))
    t.deepEqual(await host.instance.exited, { reason: 'failed' })
    t.deepEqual(await host.find(host.seen, (message) => message), { type: 'FAILED', code: 'ERR_LAUNCH_FAILED' })
    t.is(host.seen.length, 1)
  })
})

test('calls posted before READY are served after it', async (t) => {
  await withPlatform(async (platform) => {
    const host = new Host(launchTarget(platform, await image))
    t.is(await host.call('add', { a: 1, b: 2 }), 3)
    t.deepEqual(host.seen[0], { type: 'READY' })
    await host.instance.terminate()
  })
})

test('an enclave that prints and fails leaves the host’s output empty', async (t) => {
  const script = fileURLToPath(new URL('./print-and-fail.js', import.meta.url))
  const { stdout, stderr } = await promisify(execFile)(process.execPath, [script])
  t.deepEqual({ stdout, stderr }, { stdout: '', stderr: '' })
})
