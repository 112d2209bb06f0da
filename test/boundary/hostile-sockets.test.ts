import { spawn } from 'node:child_process'
import type { Socket } from 'node:net'
import test from 'ava'
import { concatBytes } from '../../protocol/bytes.js'
import { claimedId, encodeCall } from '../../protocol/calls.js'
import { decodeMessage, encodeMessage } from '../../protocol/message-codec.js'
import { FRAME_SIZE_BYTES_MAX, FrameReader, FrameWriter } from '../../protocol/stream-frames.js'
import { nodeFlags } from '../../platform/process-recipe.js'
import { encodeStart } from '../../platform/process.js'
import { buildStubImage, configurationFor, outcome } from '../enclave/target.js'
import { hostileFrame } from './hostile-bytes.js'
import { Dice, HostileMessages } from './hostile-messages.js'

/**
 * Hostile bytes on the sockets of an enclave in a process of its own, in pieces of any size. `KEYRISE_SEED=… npx ava
 * dist/test/boundary/hostile-sockets.test.js` repeats a run; `KEYRISE_SCALE=10` makes it ten times as long.
 */
const seed = Number(process.env['KEYRISE_SEED'] ?? Date.now() % 2 ** 32)
const FRAME_COUNT = 6_000 * Number(process.env['KEYRISE_SCALE'] ?? 1)
/** The collector’s slack; what the odd frames claim is more. */
const GROWTH_BYTES_MAX = 256 * 1024 * 1024

const framed = (message: Uint8Array): Uint8Array => {
  const writer = new FrameWriter()
  writer.add(message)
  return concatBytes(...writer.take())
}

/** A frame that says it is larger than any may be, and as many bytes as it says; now and then one that says it has none. */
const oddFrame = (dice: Dice): Uint8Array => {
  if (dice.roll(20) > 0) return new Uint8Array(4)
  const frame = new Uint8Array(4 + FRAME_SIZE_BYTES_MAX + 1)
  new DataView(frame.buffer).setUint32(0, frame.length - 4)
  return frame
}

/** A process as the platform starts one, with its sockets in the attacker’s hands. */
class BareProcess {
  readonly ecalls: Socket
  readonly ocalls: Socket
  readonly switchless: Socket
  readonly #child
  readonly #ended: Promise<number | null>
  readonly #platform: Socket
  readonly #answers = new Map<unknown, (answer: unknown) => void>()
  #count = 0

  constructor({ source, measurement }: Awaited<ReturnType<typeof buildStubImage>>) {
    this.#child = spawn(process.execPath, nodeFlags(process.versions.node), {
      env: {},
      cwd: '/',
      stdio: ['pipe', 'ignore', 'ignore', 'pipe', 'pipe', 'pipe', 'pipe'],
    })
    this.#ended = new Promise((resolve) => this.#child.once('exit', resolve))
    const [ecalls, ocalls, platform, switchless] = this.#child.stdio.slice(3) as unknown as Socket[]
    if (ecalls === undefined || ocalls === undefined || platform === undefined || switchless === undefined)
      throw new Error('There are no sockets')
    this.ecalls = ecalls
    this.ocalls = ocalls
    this.switchless = switchless
    this.#platform = platform
    this.#child.stdin?.end(source)
    platform.write(
      encodeStart({ configuration: configurationFor('process'), measurement, flow: 'flow', task: 'task' }, []),
    )
    const reader = new FrameReader({
      frame: (bytes) => {
        const answer = decodeMessage(bytes)
        const id = claimedId(answer)
        this.#answers.get(id)?.(answer)
        this.#answers.delete(id)
      },
      oversized: () => undefined,
    })
    ecalls.on('data', (chunk: Uint8Array) => reader.push(chunk))
    for (const socket of [ocalls, switchless]) socket.resume()
    for (const socket of [ecalls, ocalls, platform, switchless]) socket.on('error', () => undefined)
  }

  /** Writes in pieces, and waits where the enclave has enough to read. */
  async write(socket: Socket, bytes: Uint8Array, dice: Dice): Promise<void> {
    for (let offset = 0; offset < bytes.length;) {
      const end = bytes.length > 1024 ? bytes.length : Math.min(bytes.length, offset + 1 + dice.roll(bytes.length))
      if (!socket.write(bytes.subarray(offset, end))) await new Promise((resolve) => socket.once('drain', resolve))
      offset = end
    }
  }

  /** A right call between the others. @throws where the process has ended. */
  async call(name: string): Promise<unknown> {
    // No id of theirs begins so.
    const id = `right-${String(++this.#count)}`
    const answered = new Promise((resolve) => this.#answers.set(id, resolve))
    this.ecalls.write(framed(encodeMessage(encodeCall(id, name, undefined).message)))
    const ended = this.#ended.then((code) => {
      throw new Error(`The enclave ended: ${String(code)}`)
    })
    return outcome(await Promise.race([answered, ended]))
  }

  /** Its exit code, once the platform lets go of it. */
  release(): Promise<number | null> {
    this.#platform.destroy()
    return this.#ended
  }

  kill(): void {
    this.#child.kill('SIGKILL')
  }
}

const skipped = process.platform === 'win32' ? test.skip : test
skipped(`frames on the sockets of a process (seed ${String(seed)})`, async (t) => {
  const enclave = new BareProcess(await buildStubImage('../boundary/hostile.enclave'))
  const dice = new Dice(seed)
  const messages = new HostileMessages(dice)
  try {
    const [digest, memoryBytes] = [await enclave.call('digest'), Number(await enclave.call('memory'))]
    const { ecalls, ocalls, switchless } = enclave
    for (let sent = 0; sent < FRAME_COUNT; sent++) {
      const bytes = dice.roll(50) === 0 ? oddFrame(dice) : framed(hostileFrame(dice, messages))
      await enclave.write(dice.pick([ecalls, ecalls, ocalls, switchless]), bytes, dice)
      if (sent % 500 === 0) t.is(await enclave.call('digest'), digest)
    }
    t.is(await enclave.call('digest'), digest)
    t.true(Number(await enclave.call('memory')) - memoryBytes < GROWTH_BYTES_MAX)
    t.is(await enclave.release(), 0)
  } finally {
    enclave.kill()
  }
})
