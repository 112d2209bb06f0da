import test, { type ExecutionContext } from 'ava'
import { isErrorCode } from '../../protocol/errors.js'
import { encodeMessage } from '../../protocol/message-codec.js'
import { buildStubImage } from '../enclave/target.js'
import { BareHost, outcomeOf } from './bare-host.js'
import { hostileFrame } from './hostile-bytes.js'
import { Dice, HostileMessages } from './hostile-messages.js'

/**
 * Hostile messages by the ten thousand, at the gate of a real enclave and as answers to what it asks: each is refused with a code,
 * or ignored by rule, and afterwards the enclave answers as before, has the state that it had and room for as many calls.
 * `KEYRISE_SEED=… npx ava dist/test/boundary/hostile-frames.test.js` repeats a run; `KEYRISE_SCALE=10` makes it ten times as long.
 */
const seed = Number(process.env['KEYRISE_SEED'] ?? Date.now() % 2 ** 32)
const scale = Number(process.env['KEYRISE_SCALE'] ?? 1)
const [GATE_COUNT, REPLY_COUNT, FRAME_COUNT] = [50_000 * scale, 25_000 * scale, 35_000 * scale]
const CALLS_IN_FLIGHT_MAX = 1024
/** What 100,000 messages may leave behind: the collector’s slack, not a table that grows. */
const GROWTH_BYTES_MAX = 64 * 1024 * 1024

const image = buildStubImage('../boundary/hostile.enclave')

/** An enclave that is attacked, and the proof that nothing came of it. */
const attack = async (
  t: ExecutionContext,
  options: { readonly isRinged: boolean },
  work: (host: BareHost, dice: Dice, check: () => Promise<void>) => Promise<void>,
): Promise<void> => {
  const host = new BareHost(await image, options)
  const way = options.isRinged ? 'ring' : 'port'
  try {
    await host.until(() => host.answers.get('READY'))
    const [digest, memoryBytes] = [await host.call('digest', undefined, way), await host.call('memory', undefined, way)]
    const check = async (): Promise<void> => {
      // By the port: a ring that was broken stays broken.
      if ((await host.call('digest')) !== digest) throw new Error('The state has changed')
      for (const answer of host.answers.values()) assertAnswer(answer)
      host.answers.clear()
    }
    await work(host, new Dice(seed), check)
    await check()
    const calls = Array.from({ length: CALLS_IN_FLIGHT_MAX }, (_, a) => host.call('add', { a, b: 1 }))
    t.deepEqual(
      await Promise.all(calls),
      Array.from({ length: CALLS_IN_FLIGHT_MAX }, (_, a) => a + 1),
    )
    const growthBytes = Number(await host.call('memory')) - Number(memoryBytes)
    t.true(growthBytes < GROWTH_BYTES_MAX, `${String(growthBytes)} bytes more`)
    t.false(host.hasExited)
  } finally {
    await host.end()
  }
}

/** What an attacker may get to see: a value of an ECALL that took a plain value, or a code with its fixed text. */
const assertAnswer = (answer: unknown): void => {
  const { type, value } = answer as { type: unknown; value: unknown }
  if (type === 'READY') return
  if (type === 'RAW') {
    if (typeof value === 'number' || value === 'plain' || /^[0-9a-f]{64}$/.test(String(value))) return
    throw new Error(`It let pass: ${String(value)}`)
  }
  const { value: refusal } = (value ?? {}) as { value?: Record<string, unknown> }
  const keys = Object.keys(refusal ?? {})
    .sort()
    .join()
  if (type !== 'HANDLER' || !isErrorCode(refusal?.['code']) || keys !== 'code,message,name,remedy')
    throw new Error(`Neither a value nor a refusal: ${JSON.stringify(answer)}`)
  if (refusal['code'] === 'ERR_ENCLAVE_FAILED') throw new Error('A refusal that nobody has thought of')
}

const BATCH_COUNT = 250

for (const isRinged of [false, true]) {
  const beside = isRinged ? ', beside a ring' : ''
  test.serial(`messages at the gate${beside} (seed ${String(seed)})`, async (t) => {
    await attack(t, { isRinged }, async (host, dice, check) => {
      const messages = new HostileMessages(dice)
      for (let sent = 0, batch = 0; sent < GATE_COUNT / 2;) {
        const expected: [string, unknown][] = []
        for (const end = sent + BATCH_COUNT; sent < end;) {
          const hostile = messages.message()
          if (!host.post(host.ecalls, hostile.message)) continue
          sent++
          if ('expected' in hostile) expected.push([hostile.id, hostile.expected])
          // The same again, under the same id.
          if (dice.roll(20) === 0 && host.post(host.ecalls, hostile.message)) sent++
        }
        for (const [id, value] of expected)
          if (outcomeOf(await host.take(id)) !== value) throw new Error(`A right call got another answer: ${id}`)
        if (++batch % 4 === 0) await check()
      }
    })
  })
}

const ASK_OUTCOMES: readonly unknown[] = ['plain', 'ERR_REPLY_INVALID', 'ERR_OCALL_FAILED', 'ERR_OCALL_UNKNOWN']

test.serial(`answers to OCALLs (seed ${String(seed)})`, async (t) => {
  await attack(t, { isRinged: false }, async (host, dice, check) => {
    const messages = new HostileMessages(dice)
    const reply = (id: string): number => Number(host.post(host.ocalls, messages.reply(id)))
    // Before anything was asked.
    let sent = 0
    while (sent < BATCH_COUNT) sent += reply('1')
    for (let asked = 0; sent < REPLY_COUNT; asked++) {
      const answer = host.call('ask', 'why')
      const id = await host.until(() => host.asked.shift())
      for (const end = sent + dice.roll(100); sent < end;) sent += reply(id)
      host.ocalls.postMessage({ id, type: 'RAW', value: 'fine' })
      const outcome = await answer
      if (!ASK_OUTCOMES.includes(outcome)) throw new Error(`An OCALL’s answer got through: ${String(outcome)}`)
      // Late, and twice.
      host.ocalls.postMessage({ id, type: 'RAW', value: 'fine' })
      if (asked % 50 === 0) await check()
    }
  })
})

test.serial(`frames in a ring (seed ${String(seed)})`, async (t) => {
  await attack(t, { isRinged: true }, async (host, dice, check) => {
    const messages = new HostileMessages(dice)
    for (let sent = 0; sent < FRAME_COUNT; sent++) {
      await host.writeFrame(hostileFrame(dice, messages))
      if (sent % 500 === 0) await check()
      // The ring goes on as long as its frames are frames.
      if (sent % 5000 === 0) t.is(await host.call('add', { a: sent, b: 1 }, 'ring'), sent + 1)
    }
  })
})

test.serial(`a ring that is scribbled over while it is read (seed ${String(seed)})`, async (t) => {
  await attack(t, { isRinged: true }, async (host, dice, check) => {
    const frame = encodeMessage({
      id: '1',
      type: 'APPLY',
      path: ['take'],
      argumentList: [{ type: 'RAW', value: 'x'.repeat(300) }],
    })
    const cells = new Int32Array(host.rings?.into ?? new SharedArrayBuffer(8))
    for (let round = 0; round < 40; round++) {
      for (let count = 0; count < 50; count++) {
        await host.writeFrame(frame)
        cells[dice.roll(cells.length)] = dice.roll(2 ** 32) | 0
        // Sizes and positions that are nearly right do more than others.
        if (round > 10) Atomics.add(cells, dice.pick([0, 16, 32, 48]), dice.roll(64) - 32)
        if (round > 20) Atomics.notify(cells, dice.pick([32, 48]))
      }
      await check()
    }
  })
})
