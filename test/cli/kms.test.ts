import { readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'ava'
import { connectKms } from '../../host/kms.js'
import { asciiBytes, fromHex, toHex } from '../../protocol/bytes.js'
import { AttestedClient, newestKey, openByKms, sealToKms, TestPlatform } from '../kms/attested-client.js'
import { IMAGE } from '../kms/in-process.js'
import { makePlace } from '../kms/served.js'
import { ended, firstLine, run, start } from './command.js'

const PASSPHRASE = 'correct horse battery staple'

interface Identity {
  readonly identity: string
  readonly keys: readonly { readonly key: string; readonly recipient: string }[]
}

const makeKms = async (t: Parameters<typeof makePlace>[0]) => {
  const place = await makePlace(t)
  const platform = new TestPlatform()
  const policy = join(place.root, 'policy.json')
  await writeFile(
    policy,
    JSON.stringify({ platforms: [toHex(platform.publicKey)], images: [{ name: 'party', measurement: toHex(IMAGE) }] }),
  )
  const at = ['--directory', place.directory, '--custody', place.custody, '--passphrase-fd', '3', '--json']
  const init = await run(['kms', 'init', ...at, '--work-factor', '10'], `${PASSPHRASE}\n`)
  return {
    place,
    platform,
    at,
    policy,
    serve: ['kms', 'serve', ...at, '--insecure-loopback', '--policy', policy],
    init,
    made: JSON.parse(init.out || '{}') as Identity,
  }
}

test('init, serve, SIGKILL, serve again from custody: the same keys, and what was sealed opens', async (t) => {
  const { serve, platform, made, init } = await makeKms(t)
  t.deepEqual([init.code, init.err], [0, ''])
  const first = start([...serve, '--port', '0'], PASSPHRASE)
  const listening = JSON.parse(await firstLine(first)) as Identity & { event: string; url: string }
  t.like(listening, { event: 'listening', identity: made.identity })
  const kmsIdentity = fromHex(made.identity) ?? new Uint8Array(0)
  await using link = await connectKms(listening.url)
  const client = await AttestedClient.connect({ kms: link, kmsIdentity, platform, image: IMAGE })
  await client.launch()
  const envelope = sealToKms(asciiBytes('the business root key'), {
    encryptionKey: newestKey(await client.open()).encryptionKey,
    origin: client.origin,
    image: IMAGE,
  })
  first.kill('SIGKILL')
  await ended(first)

  const port = new URL(listening.url).port
  const second = start([...serve, '--port', port], PASSPHRASE)
  t.teardown(() => void second.kill('SIGKILL'))
  await firstLine(second)
  const recovered = await AttestedClient.connect({ kms: link, kmsIdentity, platform, image: IMAGE })
  t.is((await recovered.open()).incarnation, 1)
  t.deepEqual(await openByKms(recovered, envelope), asciiBytes('the business root key'))

  const busy = await run([...serve, '--port', port], PASSPHRASE)
  t.is(busy.code, 1)
  t.like(JSON.parse(busy.err), { error: { code: 'ERR_PORT_IN_USE' } })
  second.kill('SIGTERM')
  t.is(await ended(second), 0)
})

test('kms serve warns of a policy with allowDebug before it serves anything, and of no other', async (t) => {
  const { serve, policy } = await makeKms(t)
  const said = async (): Promise<unknown[]> => {
    const { err } = await run([...serve, '--port', '0'], 'wrong')
    return err
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as unknown)
  }
  const strict = await said()
  t.is(strict.length, 1)
  t.like(strict[0], { error: { code: 'ERR_PASSPHRASE_WRONG' } })
  const written = JSON.parse(await readFile(policy, 'utf8')) as object
  await writeFile(policy, JSON.stringify({ ...written, allowDebug: true }))
  const [warning, failure] = await said()
  t.regex((warning as { detail?: string }).detail ?? '', /has allowDebug: debug images get keys/)
  t.like(failure, { error: { code: 'ERR_PASSPHRASE_WRONG' } })
})

test('what is refused is said by code and remedy, and exits with 1; nothing is changed by it', async (t) => {
  const { place, at, serve, policy } = await makeKms(t)
  const keyring = await readFile(place.custody)
  const failed = async (flags: readonly string[], passphrase: string, code: string): Promise<void> => {
    const outcome = await run(flags, passphrase)
    t.is(outcome.code, 1)
    t.is(outcome.out, '')
    const { error } = JSON.parse(outcome.err) as { error: { code: string; remedy: string } }
    t.is(error.code, code)
    t.true(error.remedy.length > 0)
  }
  await failed(['kms', 'init', ...at], PASSPHRASE, 'ERR_KEYRING_EXISTS')
  await failed([...serve, '--port', '0'], 'wrong', 'ERR_PASSPHRASE_WRONG')
  await failed([...serve, '--port', '0'], '', 'ERR_CONFIG_INVALID')
  await failed([...serve, '--port', '0', '--host', '0.0.0.0'], PASSPHRASE, 'ERR_ADDRESS_REFUSED')
  await failed([...serve, '--port', '0', '--policy', join(place.root, 'none.json')], PASSPHRASE, 'ERR_CONFIG_INVALID')
  await writeFile(policy, '{}')
  await failed([...serve, '--port', '0'], PASSPHRASE, 'ERR_CONFIG_INVALID')
  t.deepEqual(await readFile(place.custody), keyring)
})

test('restore checks keyring and ledger, and begins a new ledger only when told to', async (t) => {
  const { place, at, made } = await makeKms(t)
  const restore = async (...flags: string[]) => run(['kms', 'restore', ...at, ...flags], PASSPHRASE)
  t.like(JSON.parse((await restore()).out), { ...made, ledger: 'kept', flows: 0 })
  await rm(place.directory, { recursive: true })
  t.like(JSON.parse((await restore()).err), { error: { code: 'ERR_LEDGER_MISSING' } })
  t.like(JSON.parse((await restore('--new-ledger')).out), { ...made, ledger: 'new' })
  const identity = await run(['kms', 'identity', '--directory', place.directory])
  t.is(identity.out, `${made.identity}\n`)
  t.like(JSON.parse((await run(['kms', 'identity', '--json', '--directory', place.root])).err), {
    error: { code: 'ERR_LEDGER_MISSING' },
  })
})

test('the passphrase is bytes: its line’s end does not count, all else does', async (t) => {
  const { at } = await makeKms(t)
  const outcome = async (passphrase: string | Uint8Array) => (await run(['kms', 'restore', ...at], passphrase)).code
  t.is(await outcome(`${PASSPHRASE}\r\nand more`), 0)
  t.is(await outcome(`${PASSPHRASE} \n`), 1)
  t.is(await outcome(`\n${PASSPHRASE}`), 1)
  t.is(await outcome('x'.repeat(5000)), 1)
  t.is(await outcome(new Uint8Array([0xff, 0xfe, 0])), 1)
})

test('a command line that is not understood exits with 2 and points to --help', async (t) => {
  for (const flags of [
    ['kms', 'nope'],
    ['nope'],
    ['kms', 'init'],
    ['kms', 'serve', '--directory', 'x', '--policy', 'y', '--port', '65536'],
    ['kms', 'identity', '--directory', 'x', 'y'],
  ]) {
    const outcome = await run(flags)
    t.is(outcome.code, 2, flags.join(' '))
    t.regex(outcome.err, /--help/)
    t.is(outcome.out, '')
  }
})

test('every command has its help', async (t) => {
  for (const command of [
    [],
    ['kms'],
    ['kms', 'init'],
    ['kms', 'serve'],
    ['kms', 'restore'],
    ['kms', 'rotate'],
    ['kms', 'rewrap'],
    ['kms', 'identity'],
    ['drill'],
    ['image'],
    ['image', 'build'],
    ['image', 'inspect'],
  ]) {
    const { code, out } = await run([...command, '--help'])
    t.is(code, 0)
    t.regex(out, /^Usage: keyrise/)
  }
})

test('without a terminal and without --passphrase-fd it does not wait for a passphrase', async (t) => {
  const { place } = await makeKms(t)
  const { code, err } = await run(['kms', 'restore', '--directory', place.directory, '--custody', place.custody])
  t.is(code, 1)
  t.regex(err, /ERR_CONFIG_INVALID .*--passphrase-fd/)
})
