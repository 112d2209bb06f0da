import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { open, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'ava'
import { Keyring } from '../../kms/keyring.js'
import { asciiBytes } from '../../protocol/bytes.js'
import { sealEnvelope } from '../../protocol/crypto/envelope.js'
import { nodeRandom } from '../../protocol/crypto/primitives.js'
import { encodeX25519Identity, x25519Recipient } from '../../protocol/crypto/recipients.js'
import { Secret } from '../../protocol/crypto/secret.js'
import { getHeaders, headerName, payloadName, putPair } from '../../protocol/sealed-pair.js'
import { DirectoryStore } from '../../storage/index.js'
import { makePlace } from '../kms/served.js'
import { withAge } from '../machine.js'
import { COMMAND, run } from './command.js'

const PASSPHRASE = 'correct horse battery staple'
const line = (out: string): unknown[] =>
  out
    .trim()
    .split('\n')
    .map((text): unknown => JSON.parse(text))

/** A KMS, and a store with a pair sealed to its first root key. */
const setUp = async (t: Parameters<typeof makePlace>[0]) => {
  const place = await makePlace(t)
  const at = ['--directory', place.directory, '--custody', place.custody, '--passphrase-fd', '3']
  const kms = (command: string, ...flags: string[]) => run(['kms', command, ...at, ...flags], `${PASSPHRASE}\n`)
  await kms('init', '--work-factor', '10')
  const openKeyring = async () => Keyring.open(await readFile(place.custody), Secret.take(asciiBytes(PASSPHRASE)))
  const directory = join(place.root, 'sealed')
  const store = new DirectoryStore(directory)
  using keyring = await openKeyring()
  const recipients = [x25519Recipient(keyring.rootKeys[0].certificate.encryptionKey)]
  await putPair(store, 'f/a', sealEnvelope(asciiBytes('for years'), { recipients, random: nodeRandom }))
  return { place, kms, store, directory, openKeyring }
}

test('rotate names the new root key and says what backups lack; rewrap says what became of each pair', async (t) => {
  const { kms, store, directory } = await setUp(t)
  const rotated = await kms('rotate')
  t.is(rotated.code, 0)
  t.regex(rotated.out, /root@2 +age1/)
  t.regex(rotated.out, /root@1 +age1/)
  t.regex(rotated.out, /made before do not hold root@2/)
  const rewrapped = await kms('rewrap', '--store', directory, '--json')
  t.deepEqual(line(rewrapped.out), [
    { name: 'f/a', status: 'rewrapped' },
    { rewrapped: 1, current: 0, failed: 0 },
  ])
  t.is(rewrapped.code, 0)
  t.deepEqual(await store.list(''), [headerName('f/a', 2), payloadName('f/a')])
  const again = await kms('rewrap', '--store', directory, '--flow', 'f')
  t.regex(again.out, /current +1/)
  t.like(JSON.parse((await kms('rewrap', '--store', directory, '--flow', 'g', '--json')).out), { current: 0 })
})

test('a pair that fails is named with its code, the others are done, and the exit is 1', async (t) => {
  const { kms, store, directory } = await setUp(t)
  await kms('rotate')
  await store.put(headerName('f/damaged', 1), asciiBytes('no header'))
  await store.put(payloadName('f/damaged'), new Uint8Array(64))
  const { code, out } = await kms('rewrap', '--store', directory, '--json')
  t.is(code, 1)
  t.deepEqual(line(out), [
    { name: 'f/a', status: 'rewrapped' },
    { name: 'f/damaged', status: 'failed', code: 'ERR_HEADER_MALFORMED' },
    { rewrapped: 1, current: 0, failed: 1 },
  ])
  const { out: text } = await kms('rewrap', '--store', directory)
  t.regex(text, /f\/damaged +ERR_HEADER_MALFORMED/)
})

test('rewrap goes on when nobody reads what it prints, and says where that cannot be written', async (t) => {
  const { place, kms, store, directory } = await setUp(t)
  await kms('rotate')
  const at = ['--directory', place.directory, '--custody', place.custody, '--passphrase-fd', '0']
  const rewrap = async (out: number | 'pipe') => {
    const flags = [COMMAND, 'kms', 'rewrap', ...at, '--store', directory, '--json']
    const child = spawn(process.execPath, flags, { stdio: ['pipe', out, 'pipe'] })
    child.stdout?.destroy()
    let err = ''
    child.stderr?.setEncoding('utf8').on('data', (text: string) => (err += text))
    child.stdin?.end(`${PASSPHRASE}\n`)
    const [code] = (await once(child, 'close')) as [number | null]
    return { code, err }
  }
  t.deepEqual(await rewrap('pipe'), { code: 141, err: '' })
  t.deepEqual(await store.list(''), [headerName('f/a', 2), payloadName('f/a')])
  if (!existsSync('/dev/full')) return
  await using full = await open('/dev/full', 'w')
  const { code, err } = await rewrap(full.fd)
  t.is(code, 1)
  t.regex(err, /ERR_FILE_UNWRITABLE.*ENOSPC/)
})

test('a store’s directory that is mistyped is said, not made; a flow that is none, and a wrong passphrase, too', async (t) => {
  const { kms, place, directory } = await setUp(t)
  const code = async (flags: string[]): Promise<unknown> => JSON.parse((await kms('rewrap', '--json', ...flags)).err)
  t.like(await code(['--store', join(place.root, 'seeled')]), { error: { code: 'ERR_CONFIG_INVALID' } })
  t.like(await code(['--store', directory, '--flow', '../x']), { error: { code: 'ERR_NAME_INVALID' } })
  const flags = ['--directory', place.directory, '--custody', place.custody, '--passphrase-fd', '3', '--json']
  for (const command of [['rotate'], ['rewrap', '--store', directory]]) {
    const { code: exit, err } = await run(['kms', ...command, ...flags], 'wrong\n')
    t.is(exit, 1)
    t.like(JSON.parse(err), { error: { code: 'ERR_PASSPHRASE_WRONG' } })
  }
})

withAge('in an emergency, cat and age open a pair: after a rewrap, and in the middle of one', async (t) => {
  const { kms, store, directory, openKeyring } = await setUp(t)
  const document = await readFile('docs/envelope.md', 'utf8')
  const command = /cat .* \| age -d .*/.exec(document)?.[0].replaceAll('X', 'f/a') ?? 'false'
  const open = async (version: number): Promise<string> => {
    using keyring = await openKeyring()
    const key = keyring.rootKeys.find((known) => known.key === `root@${String(version)}`)
    await writeFile(join(directory, 'key.txt'), key === undefined ? '' : encodeX25519Identity(key.privateKey))
    return execFileSync('sh', ['-c', command], { cwd: directory, stdio: ['ignore', 'pipe', 'pipe'] }).toString()
  }
  t.is(await open(1), 'for years')
  await kms('rotate')
  const [first] = await getHeaders(store, 'f/a')
  await kms('rewrap', '--store', directory)
  t.is(await open(2), 'for years')
  await store.put(headerName('f/a', 1), first?.bytes ?? new Uint8Array(0))
  t.is(await open(2), 'for years')
})
