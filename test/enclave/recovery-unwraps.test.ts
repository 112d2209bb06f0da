import test from 'ava'
import { InlineUnsealer } from '../../kms/unseal.js'
import { startWorld, text } from './flow-world.js'

/** Headers that the KMS is asked to unwrap, each by an asymmetric key. */
const unwrapped = { count: 0 }
const unseal = Object.getOwnPropertyDescriptor(InlineUnsealer.prototype, 'unseal')?.value as InlineUnsealer['unseal']
InlineUnsealer.prototype.unseal = function (task) {
  unwrapped.count += task.items.length
  return unseal.call(this, task)
}

test.serial(
  'a recovery with 10,000 secrets in several epochs takes one asymmetric unwrap, and so do all reads after it',
  async (t) => {
    const world = await startWorld()
    const { flow } = await world.launch()
    const names = Array.from({ length: 10_000 }, (_, index) => `password/${String(index)}` as const)
    for (let part = 0; part < 4; part++) {
      const written = names.slice(part * 2500, (part + 1) * 2500)
      await flow.checkpoint(Object.fromEntries(written.map((name) => [name, text(name)])))
    }
    unwrapped.count = 0
    const recovered = await world.launch()
    t.is(unwrapped.count, 1)
    for (const name of names) if ((await recovered.flow.read(name))?.length !== name.length) t.fail(name)
    recovered.flow.sign(text('and its keys'))
    t.is(unwrapped.count, 1)
  },
)

test.serial(
  'what was sealed straight to the KMS is unwrapped when the first of it is read, all in one request',
  async (t) => {
    const world = await startWorld()
    const { flow } = await world.launch()
    const names = Array.from({ length: 16 }, (_, index) => `session/${String(index)}` as const)
    await flow.checkpoint(Object.fromEntries(names.map((name) => [name, { to: 'kms' as const, bytes: text(name) }])))
    unwrapped.count = 0
    const recovered = await world.launch()
    t.is(unwrapped.count, 1)
    for (const name of names) t.deepEqual(await recovered.flow.read(name), text(name))
    t.is(unwrapped.count, 1 + names.length)
  },
)
