import { join } from 'node:path'
import test from 'ava'
import { sealEnvelope } from '../../protocol/crypto/envelope.js'
import { asciiBytes } from '../../protocol/bytes.js'
import { nodeRandom } from '../../protocol/crypto/primitives.js'
import { parseX25519Recipient, x25519Recipient } from '../../protocol/crypto/recipients.js'
import { headerName, payloadName, putPair } from '../../protocol/sealed-pair.js'
import { DirectoryStore } from '../../storage/index.js'
import { serveKms } from '../../kms/server.js'
import { initPlace, makePlace, PASSPHRASE } from '../kms/served.js'
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
  const blind = await kms('keys', 'destroy', 'root@1')
  t.deepEqual([blind.code, blind.value], [1, { key: 'root@1', stores: 0, dependents: [] }])
  t.is((await kms('keys', 'disable', 'root@1')).states[1], 'root@1 disabled')
  t.is((await kms('keys', 'enable', 'root@1')).states[1], 'root@1 decrypt-only')

  const asked = await kms('keys', 'destroy', 'root@1', '--store', directory)
  t.is(asked.code, 1)
  t.deepEqual(asked.value, { key: 'root@1', stores: 1, dependents: [`${directory}: f/a`] })
  t.is((await kms('rewrap', '--store', directory)).code, 0)
  const destroyed = await kms('keys', 'destroy', 'root@1', '--store', directory, '--waiting-days', '3', '--yes')
  t.deepEqual(destroyed.value['dependents'], [])
  t.true(Date.parse(destroyed.keys[1]?.at ?? '') > Date.now() + 2 * 24 * 60 * 60 * 1000)
  const cancelled = await kms('keys', 'cancel', 'root@1')
  t.deepEqual([cancelled.states[1], cancelled.keys[1]?.at], ['root@1 disabled', null])
  t.is((await kms('keys', 'disable', 'root@2')).code, 1)
  t.is((await kms('rotate')).keys[0]?.suite, 'mlkem768x25519')
})

test('where a KMS runs, the same commands ask it: it serves on, and rewraps its registered stores', async (t) => {
  const place = await makePlace(t)
  const made = await initPlace(place)
  const directory = join(place.root, 'sealed')
  const sealed = sealEnvelope(asciiBytes('for years'), {
    recipients: [x25519Recipient(parseX25519Recipient(made.keys[0]?.recipient ?? ''))],
    random: nodeRandom,
  })
  await putPair(new DirectoryStore(directory), 'f/a', sealed)
  const options = { ...place, policy: { platforms: [], images: [] }, port: 0, insecureLoopback: true }
  await using served = await serveKms({ ...options, passphrase: PASSPHRASE, stores: { party: { directory } } })
  // No passphrase is given to any of them.
  const kms = async (...command: string[]) => {
    const { code, out, err } = await run(['kms', ...command, '--directory', place.directory, '--json'])
    return { code, err, value: JSON.parse(out === '' ? '{}' : out) as Record<string, unknown> }
  }
  const states = ({ value }: { value: Record<string, unknown> }): string[] =>
    (value['keys'] as { key: string; state: string }[]).map(({ key, state }) => `${key} ${state}`)
  const asked = await kms('keys', 'destroy', 'root@1')
  t.is(asked.code, 1)
  t.deepEqual(asked.value, { key: 'root@1', stores: 1, dependents: ['party: f/a'] })
  t.deepEqual(states(await kms('rotate')), ['root@2 enabled', 'root@1 decrypt-only'])
  t.is(served.keys[0]?.key, 'root@2')
  t.is(served.keys[0]?.suite, 'x25519')
  const rewrapped = await kms('rewrap')
  t.is(rewrapped.code, 0)
  t.like(rewrapped.value, { state: 'done', failures: [] })
  t.deepEqual(await new DirectoryStore(directory).list(''), [headerName('f/a', 2), payloadName('f/a')])
  t.deepEqual(states(await kms('keys', 'disable', 'root@1')), ['root@2 enabled', 'root@1 disabled'])
  const destroyed = await kms('keys', 'destroy', 'root@1', '--waiting-days', '3', '--yes')
  t.deepEqual(destroyed.value['dependents'], [])
  t.deepEqual(states(await kms('keys', 'cancel', 'root@1')), ['root@2 enabled', 'root@1 disabled'])
  t.deepEqual(states(await kms('keys', 'list')), ['root@2 enabled', 'root@1 disabled'])
  t.regex((await kms('rewrap', '--flow', 'f')).err, /ERR_CONFIG_INVALID/)
  await kms('rotate', '--suite', 'mlkem768x25519')
  await kms('rotate')
  t.deepEqual(
    served.keys.map(({ suite }) => suite),
    ['mlkem768x25519', 'mlkem768x25519', 'x25519', 'x25519'],
  )
})

test('a store that is registered under no id, or in a directory that is not there, is refused by its name', async (t) => {
  const place = await makePlace(t)
  await initPlace(place)
  const options = { ...place, policy: { platforms: [], images: [] }, port: 0, insecureLoopback: true }
  const start = (id: string, directory: string) =>
    serveKms({ ...options, passphrase: PASSPHRASE, stores: { [id]: { directory } } })
  const code = 'ERR_CONFIG_INVALID'
  await t.throwsAsync(start('a/b', place.root), { code, message: /stores: an id/ })
  await t.throwsAsync(start('party', join(place.root, 'mistyped')), { code, message: /stores\.party: .*ENOENT/ })
})
