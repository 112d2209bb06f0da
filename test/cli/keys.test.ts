import { join } from 'node:path'
import test from 'ava'
import { sealEnvelope } from '../../protocol/crypto/envelope.js'
import { asciiBytes } from '../../protocol/bytes.js'
import { nodeRandom } from '../../protocol/crypto/primitives.js'
import { parseX25519Recipient, x25519Recipient } from '../../protocol/crypto/recipients.js'
import { putPair } from '../../protocol/sealed-pair.js'
import { DirectoryStore } from '../../storage/index.js'
import { makePlace } from '../kms/served.js'
import { run } from './command.js'

test('keys are rotated to another suite, disabled, enabled, and destroyed after what needs them was said', async (t) => {
  const place = await makePlace(t)
  const at = ['--directory', place.directory, '--custody', place.custody, '--passphrase-fd', '3', '--json']
  const kms = async (...command: string[]) => {
    const { code, out } = await run(['kms', ...command, ...at], 'correct horse\n')
    const value = JSON.parse(out === '' ? '{}' : (out.trim().split('\n').at(-1) ?? '{}')) as Record<string, unknown>
    const keys = (value['keys'] ?? []) as { key: string; suite: string; state: string; at: string; recipient: string }[]
    return { code, value, keys, states: keys.map(({ key, state }) => `${key} ${state}`) }
  }
  const made = await kms('init', '--work-factor', '10')
  const sealed = sealEnvelope(asciiBytes('for years'), {
    recipients: [x25519Recipient(parseX25519Recipient(made.keys[0]?.recipient ?? ''))],
    random: nodeRandom,
  })
  const directory = join(place.root, 'sealed')
  await putPair(new DirectoryStore(directory), 'f/a', sealed)
  const rotated = await kms('rotate', '--suite', 'mlkem768x25519')
  t.deepEqual(rotated.states, ['root@2 enabled', 'root@1 decrypt-only'])
  t.is(rotated.keys[0]?.suite, 'mlkem768x25519')
  t.is((await kms('keys', 'disable', 'root@1')).states[1], 'root@1 disabled')
  t.is((await kms('keys', 'enable', 'root@1')).states[1], 'root@1 decrypt-only')

  const asked = await kms('keys', 'destroy', 'root@1', '--store', directory)
  t.is(asked.code, 1)
  t.deepEqual(asked.value, { key: 'root@1', dependents: [`${directory}: f/a`] })
  t.is((await kms('rewrap', '--store', directory)).code, 0)
  const destroyed = await kms('keys', 'destroy', 'root@1', '--store', directory, '--waiting-days', '3', '--yes')
  t.deepEqual(destroyed.value['dependents'], [])
  t.true(Date.parse(destroyed.keys[1]?.at ?? '') > Date.now() + 2 * 24 * 60 * 60 * 1000)
  const cancelled = await kms('keys', 'cancel', 'root@1')
  t.deepEqual([cancelled.states[1], cancelled.keys[1]?.at], ['root@1 disabled', null])
  t.is((await kms('keys', 'disable', 'root@2')).code, 1)
})
