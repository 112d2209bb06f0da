import { createHash, generateKeyPairSync } from 'node:crypto'
import { once } from 'node:events'
import { stat } from 'node:fs/promises'
import test, { type ExecutionContext } from 'ava'
import { asciiBytes, fromHex, toHex, type Bytes } from '../../protocol/bytes.js'
import { parseFlowId } from '../../protocol/names.js'
import { sealEnvelope } from '../../protocol/crypto/envelope.js'
import { sealLayers } from '../../protocol/crypto/layers.js'
import { nodeRandom } from '../../protocol/crypto/primitives.js'
import { parseX25519Recipient, x25519Recipient } from '../../protocol/crypto/recipients.js'
import { Secret } from '../../protocol/crypto/secret.js'
import { encodeSshRsaRecipient } from '../../protocol/crypto/ssh-rsa.js'
import { createPublicKey } from 'node:crypto'
import { codeOf, envelope, Place, start, type Outcome } from './envelopes.js'

const TEXT = 'what is sealed here'
const PASSPHRASE = 'correct horse battery staple'

const inspect = async (file: string): Promise<Record<string, unknown>> =>
  JSON.parse((await envelope(['inspect', '--json', file])).out.toString()) as Record<string, unknown>

const opened = async (t: ExecutionContext, flags: readonly string[], expected: string | Uint8Array): Promise<void> => {
  const outcome = await envelope(['open', ...flags])
  t.is(outcome.err, '')
  t.is(outcome.code, 0)
  t.true(outcome.out.equals(Buffer.from(expected)))
}

const refused = (t: ExecutionContext, outcome: Outcome, code: string): void => {
  t.is(outcome.code, 1)
  t.is(codeOf(outcome), code)
  t.is(outcome.out.length, 0)
}

test('what is sealed for a key opens with it, from files and through pipes, with and without armor', async (t) => {
  const place = await Place.make(t)
  const { file: key, recipient } = await place.key()
  const plain = await place.write('plain', TEXT)
  const sealed = await envelope(['seal', '-r', recipient, '-o', place.path('a.age'), '--json', plain])
  const { sealedSizeBytes, ...outcome } = JSON.parse(sealed.out.toString()) as { sealedSizeBytes: number }
  t.deepEqual(outcome, { file: place.path('a.age'), recipients: 1, sizeBytes: TEXT.length })
  t.is(sealedSizeBytes, (await place.read('a.age')).length)
  await opened(t, ['-i', key, place.path('a.age')], TEXT)

  const piped = await envelope(['seal', '-r', recipient, '--armor'], { input: TEXT })
  t.true(piped.out.toString().startsWith('-----BEGIN AGE ENCRYPTED FILE-----\n'))
  const back = await envelope(['open', '-i', key], { input: piped.out })
  t.is(back.out.toString(), TEXT)
  const spaced = await envelope(['open', '-i', key, '-'], { input: Buffer.concat([Buffer.from(' \r\n'), piped.out]) })
  t.is(spaced.out.toString(), TEXT)
})

test('several recipients, of every kind, by flag and by file; any of them opens', async (t) => {
  const place = await Place.make(t)
  const [first, second] = [await place.key('1.txt'), await place.key('2.txt', '--suite', 'mlkem768x25519')]
  const { privateKey } = generateKeyPairSync('rsa', {
    modulusLength: 3072,
    privateKeyEncoding: { format: 'pem', type: 'pkcs8' },
    publicKeyEncoding: { format: 'pem', type: 'spki' },
  })
  const rsa = encodeSshRsaRecipient(createPublicKey(privateKey))
  const rsaFile = await place.write('rsa.pem', privateKey)
  const team = await place.write('team.txt', `# the team\r\n\r\n${second.recipient}\r\n${rsa} somebody@host\n`)
  const file = place.path('a.age')
  await envelope(['seal', '-r', first.recipient, '-R', team, '-o', file], { input: TEXT })
  const { recipients } = await inspect(file)
  t.deepEqual(
    (recipients as { type: string }[]).map(({ type }) => type),
    ['X25519', 'mlkem768x25519', 'ssh-rsa'],
  )
  for (const key of [first.file, second.file, rsaFile]) await opened(t, ['-i', key, file], TEXT)
  const other = await place.key('3.txt')
  refused(t, await envelope(['open', '--json', '-i', other.file, file]), 'ERR_IDENTITY_MISMATCH')
  await opened(t, ['-i', other.file, '-i', second.file, file], TEXT)
})

test('a passphrase by file descriptor seals and opens; a wrong one, and one beside keys, are refused', async (t) => {
  const place = await Place.make(t)
  const { recipient } = await place.key()
  const file = place.path('a.age')
  const seal = ['seal', '--passphrase-fd', '3', '--work-factor', '10', '--json']
  t.is((await envelope([...seal, '-o', file], { input: TEXT, passphrases: [PASSPHRASE] })).code, 0)
  const open = (passphrase: string) =>
    envelope(['open', '--json', '--passphrase-fd', '3', file], { passphrases: [passphrase] })
  t.is((await open(PASSPHRASE)).out.toString(), TEXT)
  refused(t, await open('something else'), 'ERR_IDENTITY_MISMATCH')
  refused(
    t,
    await envelope([...seal, '-r', recipient], { input: TEXT, passphrases: [PASSPHRASE] }),
    'ERR_CONFIG_INVALID',
  )
  refused(t, await envelope(['seal', '--json'], { input: TEXT }), 'ERR_CONFIG_INVALID')
})

test('keygen: a file for its owner only, never over another; what it prints is its public key', async (t) => {
  const place = await Place.make(t)
  const made = await envelope(['keygen', '-o', place.path('key.txt')])
  const text = (await place.read('key.txt')).toString()
  t.regex(
    text,
    /^# created: 20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ\n# public key: age1[a-z0-9]{58}\nAGE-SECRET-KEY-1[A-Z0-9]{58}\n$/,
  )
  t.is(made.out.toString(), `${/age1\w+/.exec(text)?.[0] ?? ''}\n`)
  t.is((await stat(place.path('key.txt'))).mode & 0o777, 0o600)
  refused(t, await envelope(['keygen', '--json', '-o', place.path('key.txt')]), 'ERR_FILE_EXISTS')
  t.is((await place.read('key.txt')).toString(), text)
  const shown = await envelope(['keygen', '--suite', 'mlkem768x25519'])
  t.regex(shown.out.toString(), /\nAGE-SECRET-KEY-PQ-1[A-Z0-9]+\n$/)
  t.regex(shown.err, /^Public key: age1pq1[a-z0-9]+\n$/)
})

test('inspect says of a file what was sealed, by file and through a pipe', async (t) => {
  const place = await Place.make(t)
  const { recipient } = await place.key()
  const context = {
    flow: parseFlowId('credit-2026'),
    task: parseFlowId('credit'),
    kind: 'final-result' as const,
    name: 'final-result/model',
    epoch: 7,
    incarnation: 2,
    image: fromHex('ab'.repeat(32)) as Bytes,
  }
  const authority = new Uint8Array(32).fill(5)
  const layer = [x25519Recipient(parseX25519Recipient(recipient))]
  const file = sealLayers(new Uint8Array(100_000), {
    layers: [layer, [...layer, ...layer]],
    context,
    originKeys: [{ authority, key: Secret.random(32, nodeRandom) }],
    random: nodeRandom,
  })
  const path = await place.write('a.age', file)
  const said = await inspect(path)
  const inner = sealLayers(new Uint8Array(100_000), { layers: [layer], context, random: nodeRandom }).length
  t.like(said, {
    file: path,
    armored: false,
    context: { ...context, image: toHex(context.image) },
    authorities: [createHash('sha256').update(authority).digest('hex').slice(0, 32)],
    layer: { index: 2, count: 2 },
    sizeBytes: file.length,
    problem: null,
  })
  t.is((said['recipients'] as unknown[]).length, 2)
  t.true((said['plaintextSizeBytes'] as number) > inner)
  t.is(said['chunkCount'], Math.ceil((said['plaintextSizeBytes'] as number) / 65_536))
  const piped = await envelope(['inspect', '--json'], { input: file })
  t.deepEqual(JSON.parse(piped.out.toString()), { ...said, file: null })
  const lines = (await envelope(['inspect', path])).out.toString()
  for (const word of ['credit-2026', 'final-result/model', 'X25519', '2 of 2']) t.true(lines.includes(word), word)
})

test('inspect needs no whole file: it says that the payload is cut, and refuses only what has no header', async (t) => {
  const place = await Place.make(t)
  const { recipient } = await place.key()
  const recipients = [x25519Recipient(parseX25519Recipient(recipient))]
  const file = sealEnvelope(asciiBytes(TEXT), { recipients, random: nodeRandom })
  const { headerSizeBytes } = await inspect(await place.write('a.age', file))
  const cut = await place.write('cut.age', file.subarray(0, (headerSizeBytes as number) + 20))
  t.like(await inspect(cut), { problem: 'ERR_PAYLOAD_TRUNCATED', plaintextSizeBytes: null, chunkCount: null })
  refused(t, await envelope(['inspect', '--json'], { input: TEXT }), 'ERR_HEADER_MALFORMED')
  refused(t, await envelope(['inspect', '--json', place.path('none')]), 'ERR_FILE_UNREADABLE')
})

test('rewrap changes who opens a file, in its place, keeps armor and payload, and leaves nothing beside it', async (t) => {
  const place = await Place.make(t)
  const [old, next] = [await place.key('old.txt'), await place.key('new.txt')]
  for (const armor of [[], ['--armor']]) {
    const file = place.path('a.age')
    await envelope(['seal', '-f', '-r', old.recipient, ...armor, '-o', file], { input: TEXT })
    const names = await place.names()
    const payload = (await place.read('a.age')).subarray(-20)
    const done = await envelope(['rewrap', '--json', '-i', old.file, '-r', next.recipient, '-r', next.recipient, file])
    t.like(JSON.parse(done.out.toString()), { file, recipients: 2, newFileKey: false })
    if (armor.length === 0) t.true((await place.read('a.age')).subarray(-20).equals(payload))
    await opened(t, ['-i', next.file, file], TEXT)
    refused(t, await envelope(['open', '--json', '-i', old.file, file]), 'ERR_IDENTITY_MISMATCH')
    t.is((await inspect(file))['armored'], armor.length > 0)
    t.deepEqual(await place.names(), names)
  }
})

test('rewrap with a new file key, from and to passphrases, and to another place', async (t) => {
  const place = await Place.make(t)
  const file = place.path('a.age')
  const factor = ['--work-factor', '10']
  await envelope(['seal', '--passphrase-fd', '3', ...factor, '-o', file], { input: TEXT, passphrases: ['old'] })
  const before = await place.read('a.age')
  const flags = ['--passphrase-fd', '3', '--new-passphrase-fd', '4', '--new-file-key', ...factor]
  const out = place.path('b.age')
  t.is((await envelope(['rewrap', ...flags, '-o', out, file], { passphrases: ['old', 'new'] })).err, '')
  t.true((await place.read('a.age')).equals(before))
  t.false((await place.read('b.age')).subarray(-35).equals(before.subarray(-35)))
  const reopened = await envelope(['open', '--passphrase-fd', '3', out], { passphrases: ['new'] })
  t.is(reopened.out.toString(), TEXT)
})

test('rewrap that cannot end well leaves the file as it was', async (t) => {
  const place = await Place.make(t)
  const [old, other] = [await place.key('old.txt'), await place.key('other.txt')]
  const file = place.path('a.age')
  await place.random('plain', 200_000)
  await envelope(['seal', '-r', old.recipient, '-o', file, place.path('plain')])
  const whole = await place.read('a.age')
  const names = await place.names()
  refused(t, await envelope(['rewrap', '--json', '-i', other.file, '-r', old.recipient, file]), 'ERR_IDENTITY_MISMATCH')
  refused(t, await envelope(['rewrap', '--json', '-i', old.file, file]), 'ERR_CONFIG_INVALID')
  t.true((await place.read('a.age')).equals(whole))
  const damaged = Buffer.from(whole)
  damaged.writeUInt8(damaged.readUInt8(150_000) ^ 1, 150_000)
  await place.write('a.age', damaged)
  const reseal = ['rewrap', '--json', '-i', old.file, '-r', other.recipient, '--new-file-key', file]
  refused(t, await envelope(reseal), 'ERR_PAYLOAD_INVALID')
  t.true((await place.read('a.age')).equals(damaged))
  t.deepEqual(await place.names(), names)
})

test('a layered file opens with a key of every layer', async (t) => {
  const place = await Place.make(t)
  const [inner, outer] = [await place.key('inner.txt'), await place.key('outer.txt')]
  const layers = [inner, outer].map(({ recipient }) => [x25519Recipient(parseX25519Recipient(recipient))])
  const file = await place.write('a.age', sealLayers(asciiBytes(TEXT), { layers, random: nodeRandom }))
  await opened(t, ['-i', inner.file, '-i', outer.file, file], TEXT)
  const missing = await envelope(['open', '--json', '-i', outer.file, file])
  refused(t, missing, 'ERR_IDENTITY_MISMATCH')
  t.regex(missing.err, /layer 1 of 2/)
})

test('what is no key is refused by its place in the file, and never shown', async (t) => {
  const place = await Place.make(t)
  const { file: key, recipient } = await place.key()
  const file = place.path('a.age')
  await envelope(['seal', '-r', recipient, '-o', file], { input: TEXT })
  const text = (await place.read('key.txt')).toString()
  const secret = /AGE-SECRET-KEY-1\w+/.exec(text)?.[0] ?? ''
  const flipped = secret.slice(0, -1) + (secret.endsWith('Q') ? 'P' : 'Q')
  for (const wrong of [
    flipped,
    secret.toLowerCase(),
    `${secret} x`,
    recipient,
    '',
    '-----BEGIN RSA PRIVATE KEY-----\nx',
  ]) {
    const outcome = await envelope(['open', '--json', '-i', await place.write('wrong.txt', `# one\n${wrong}\n`), file])
    refused(t, outcome, 'ERR_CONFIG_INVALID')
    if (wrong !== '') t.false(outcome.err.includes(wrong.slice(5)))
  }
  for (const wrong of ['age1qqqq', recipient.toUpperCase(), `${recipient}q`, 'ssh-ed25519 AAAA', 'x'.repeat(9000)]) {
    refused(t, await envelope(['seal', '--json', '-r', wrong], { input: TEXT }), 'ERR_KEY_INVALID')
  }
  const swapped = await envelope(['seal', '--json', '-R', key], { input: TEXT })
  refused(t, swapped, 'ERR_CONFIG_INVALID')
  t.false(swapped.err.includes(secret.slice(20)))
  refused(t, await envelope(['open', '--json', '-i', place.path('none'), file]), 'ERR_FILE_UNREADABLE')
  refused(t, await envelope(['open', '--json', file]), 'ERR_CONFIG_INVALID')
})

test('every command on envelopes has its help, with an example', async (t) => {
  for (const command of ['keygen', 'seal', 'open', 'inspect', 'rewrap']) {
    const { code, out } = await envelope([command, '--help'])
    t.is(code, 0)
    t.regex(out.toString(), new RegExp(`Examples?:\n {2}.*keyrise envelope ${command} `))
  }
  t.is((await envelope(['keygen', '--suite', 'rot13'])).code, 2)
  const child = start(['seal', '--help'])
  child.stdout?.destroy()
  let err = ''
  child.stderr?.on('data', (bytes: Buffer) => (err += bytes.toString()))
  await once(child, 'close')
  t.is(err, '')
})
