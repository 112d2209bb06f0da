import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { spawn } from 'node:child_process'
import type { Socket } from 'node:net'
import test from 'ava'
import { concatBytes } from '../../protocol/bytes.js'
import { encodeCall } from '../../protocol/calls.js'
import { decodeMessage, encodeMessage } from '../../protocol/message-codec.js'
import { FrameReader, FrameWriter } from '../../protocol/stream-frames.js'
import { encodeStart, startProcess } from '../../platform/process.js'
import { nodeFlags, ProcessRecipe } from '../../platform/process-recipe.js'
import { buildTarget, configurationFor, outcome } from '../enclave/target.js'

/** Bytes on the sockets, where a hostile host or a faulty enclave writes what no port of ours would. */

const image = buildTarget()
const skipped = process.platform === 'win32' ? test.skip : test

const framed = (message: Uint8Array): Uint8Array => {
  const writer = new FrameWriter()
  writer.add(message)
  return concatBytes(...writer.take())
}
const call = (id: string, name: string, argument?: unknown) =>
  framed(encodeMessage(encodeCall(id, name, argument).message))

skipped('bytes that are no message are refused with a code, and the enclave’s state is as before', async (t) => {
  const { source, measurement } = await image
  const child = spawn(process.execPath, nodeFlags(process.versions.node), {
    env: {},
    cwd: '/',
    stdio: ['pipe', 'ignore', 'ignore', 'pipe', 'pipe', 'pipe', 'pipe'],
  })
  try {
    const [ecalls, , platform] = child.stdio.slice(3) as unknown as Socket[]
    child.stdin?.end(source)
    const start = { configuration: configurationFor('process'), measurement, flow: 'flow', task: 'task' }
    platform?.write(encodeStart(start, []))
    const seen: unknown[] = []
    let wake = (): void => undefined
    const frames = new FrameReader({
      frame: (bytes) => {
        seen.push(decodeMessage(bytes))
        wake()
      },
      oversized: () => t.fail(),
    })
    ecalls?.on('data', (chunk: Uint8Array) => frames.push(chunk))
    const next = async (): Promise<unknown> => {
      while (seen.length === 0) await new Promise<void>((resolve) => (wake = resolve))
      return seen.shift()
    }
    t.deepEqual(await next(), { type: 'READY' })
    ecalls?.write(call('1', 'increment'))
    t.is(outcome(await next()), 1)
    const codes = new Set<unknown>()
    const whole = encodeMessage(encodeCall('2', 'increment', { a: [1, 'x', new Uint8Array(9)] }).message)
    const cut = Array.from({ length: whole.length }, (_, size) => whole.subarray(0, size))
    // A cut that ends with the name is a call without its argument: it is refused too, by the ECALL’s schema.
    for (const bytes of [...cut, concatBytes(whole, new Uint8Array(1)), new Uint8Array(64).fill(255)]) {
      ecalls?.write(framed(bytes))
      const answer = await next()
      if ((answer as { type?: unknown }).type === 'RAW') continue
      codes.add(outcome(answer))
    }
    t.deepEqual(
      [...codes].filter(
        (code) =>
          !/^ERR_(?:MESSAGE_INVALID|SIZE_LIMIT|VALUE_UNSUPPORTED|ECALL_UNKNOWN|ARGUMENT_INVALID)$/.test(String(code)),
      ),
      [],
    )
    t.true(codes.has('ERR_MESSAGE_INVALID'))
    // The largest size that four bytes say, and all of its bytes: none is kept.
    const size = 0x0800_0000
    ecalls?.write(new Uint8Array([8, 0, 0, 0]))
    t.is(outcome(await next()), 'ERR_SIZE_LIMIT')
    for (let left = size; left > 0; left -= 1 << 22) ecalls?.write(new Uint8Array(Math.min(left, 1 << 22)))
    ecalls?.write(call('3', 'add', { a: 20, b: 22 }))
    t.is(outcome(await next()), 42)
    platform?.destroy()
    t.is(await new Promise((resolve) => child.once('exit', resolve)), 0)
  } finally {
    child.kill('SIGKILL')
  }
})

const started = async (source: string) => {
  const directory = await mkdtemp(join(tmpdir(), 'keyrise-frames-'))
  try {
    const start = { configuration: configurationFor('process'), measurement: new Uint8Array(32), flow: 'f', task: 't' }
    const instance = startProcess(new ProcessRecipe(directory), source, start)
    const seen: unknown[] = []
    instance.ecalls.onMessage((message) => seen.push(message))
    const { reason } = await instance.exited
    return { reason, seen }
  } finally {
    await rm(directory, { recursive: true })
  }
}

skipped('an enclave that sends what is no message is ended', async (t) => {
  for (const bytes of ['0,0,0,1,99', '0,0,0,0', '255,255,255,255']) {
    const { reason, seen } = await started(
      `require('node:fs').writeSync(3, Buffer.from([${bytes}])); setInterval(() => {}, 1000)`,
    )
    t.is(reason, 'a malformed message')
    t.deepEqual(seen, [])
  }
})

skipped('what it said before it ended is delivered, and its end has a name', async (t) => {
  const hello = [...framed(encodeMessage({ type: 'READY' }))].join()
  const say = (end: string): string => `require('node:fs').writeSync(3, Buffer.from([${hello}])); ${end}`
  for (const [end, reason] of [
    ['process.exit(0)', 'ended'],
    ['process.exit(70)', 'failed'],
    ['process.exit(3)', 'exit code 3'],
    ["process.kill(process.pid, 'SIGKILL')", 'ended by SIGKILL'],
    ['process.abort()', 'ended by SIGABRT'],
  ] as const) {
    t.deepEqual(await started(say(end)), { reason, seen: [{ type: 'READY' }] })
  }
})
