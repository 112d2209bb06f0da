import { execFileSync } from 'node:child_process'
import { mkdir, readdir, readFile, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'ava'
import { FileLedger } from '../../kms/file-ledger.js'
import { Keyring } from '../../kms/keyring.js'
import { serveKms } from '../../kms/server.js'
import { asciiBytes, fromHex, toHex } from '../../protocol/bytes.js'
import { encodeCbor } from '../../protocol/cbor.js'
import { sealEnvelope } from '../../protocol/crypto/envelope.js'
import { nodeRandom } from '../../protocol/crypto/primitives.js'
import { x25519Recipient } from '../../protocol/crypto/recipients.js'
import { Secret } from '../../protocol/crypto/secret.js'
import { parseFlowId } from '../../protocol/names.js'
import { decodeReceiptBody, splitReceipt } from '../../protocol/receipts.js'
import { nodeFileSystem } from '../../storage/index.js'
import { askSocket } from '../kms/admin.js'
import { digestOf } from '../kms/attested-client.js'
import { makePlace } from '../kms/served.js'
import { withAge } from '../machine.js'
import { run } from './command.js'
import { flowState } from '../kms/flow-state.js'

const PASSPHRASE = 'correct horse battery staple'

const setUp = async (t: Parameters<typeof makePlace>[0]) => {
  const place = await makePlace(t)
  const at = ['--directory', place.directory, '--custody', place.custody, '--json']
  const policy = join(place.root, 'policy.json')
  await writeFile(
    policy,
    JSON.stringify({ platforms: [], images: [{ name: 'party', measurement: toHex(digestOf(1)) }] }),
  )
  const shares = join(place.root, 'shares')
  await mkdir(shares)
  const init = (...flags: string[]) => run(['kms', 'init', ...at, '--work-factor', '10', ...flags])
  const initByPassphrase = () => run(['kms', 'init', ...at, '--work-factor', '10', '--passphrase-fd', '3'], PASSPHRASE)
  return { place, at, policy, shares, init, initByPassphrase }
}

const codeOf = ({ err }: { err: string }): string =>
  (JSON.parse(err) as { error: { code: string; message: string } }).error.code
const messageOf = ({ err }: { err: string }): string =>
  (JSON.parse(err) as { error: { message: string } }).error.message

test('custodians: each share in a file of its own, any two of three open the KMS, fewer or a bad one are named', async (t) => {
  const { at, shares, init } = await setUp(t)
  const made = await init('--custodians', '3', '--threshold', '2', '--shares', shares)
  t.is(made.code, 0, made.err)
  const { identity } = JSON.parse(made.out) as { identity: string }
  const files = (await readdir(shares)).sort().map((name) => join(shares, name))
  t.deepEqual(
    files.map((path) => path.slice(shares.length + 1)),
    [1, 2, 3].map((index) => `share-${String(index)}-of-3-${identity.slice(0, 16)}.txt`),
  )
  const [first = '', second = '', third = ''] = files
  t.is((await stat(first)).mode & 0o777, 0o600)
  t.regex(
    await readFile(first, 'utf8'),
    /^# share 1 of 3 of the KMS [0-9a-f]{16}; 2 open it\nkeyrise-share-1[a-z0-9]+\n$/,
  )
  const check = (...given: string[]) => run(['kms', 'restore', ...at, ...given.flatMap((path) => ['--share', path])])
  t.is((await check(third, first)).code, 0)
  const few = await check(second)
  t.is(codeOf(few), 'ERR_CONFIG_INVALID')
  t.regex(messageOf(few), /1 of 2 shares: 2/)
  const written = await readFile(third, 'utf8')
  await writeFile(third, `${written.slice(0, -2)}${written.at(-2) === 'q' ? 'p' : 'q'}\n`)
  const bad = await check(first, third)
  t.is(codeOf(bad), 'ERR_SHARE_INVALID')
  t.regex(messageOf(bad), /share-3-of-3.*mistyped/)
  t.like(JSON.parse((await run(['kms', 'status', ...at.slice(0, 4), '--json'])).out), {
    identity,
    keyring: 'there',
    custodians: { threshold: 2, count: 3 },
    ledger: { flows: 0 },
    waitMs: 0,
  })
})

test('rekey: custodians for a passphrase, a generated passphrase for them, one from a credential for that', async (t) => {
  const { place, at, shares, initByPassphrase } = await setUp(t)
  const made = await initByPassphrase()
  const opens = async (flags: string[], passphrase?: string): Promise<number | null> =>
    (await run(['kms', 'restore', ...at, ...flags], passphrase)).code
  const rekey = (flags: string[], passphrase?: string) =>
    run(['kms', 'rekey', ...at, ...flags], passphrase, { ...process.env, CREDENTIALS_DIRECTORY: place.root })
  const byPassphrase = ['--passphrase-fd', '3']
  const generated = join(place.root, 'generated')
  t.is(
    codeOf(await rekey([...byPassphrase, '--generate-passphrase', '--passphrase-out', generated], 'wrong')),
    'ERR_PASSPHRASE_WRONG',
  )
  await t.throwsAsync(stat(generated), { code: 'ENOENT' })
  const shared = await rekey([...byPassphrase, '--custodians', '3', '--threshold', '2', '--shares', shares], PASSPHRASE)
  t.is(shared.code, 0, shared.err)
  t.like(JSON.parse(shared.out), { ...(JSON.parse(made.out) as object), custodians: { count: 3, threshold: 2 } })
  t.is(await opens(byPassphrase, PASSPHRASE), 1)
  const given = (await readdir(shares)).slice(1).flatMap((name) => ['--share', join(shares, name)])
  t.is(await opens(given), 0)
  const alone = await rekey([...given, '--generate-passphrase', '--passphrase-out', generated])
  t.is(alone.code, 0, alone.err)
  t.like(JSON.parse((await run(['kms', 'status', ...at])).out), { ledger: { receipts: 3 } })
  t.is(await opens(byPassphrase, await readFile(generated, 'utf8')), 0)
  const chosen = await rekey(
    [...byPassphrase, '--new-passphrase-credential', 'generated', '--work-factor', '11'],
    await readFile(generated, 'utf8'),
  )
  t.is(chosen.code, 0, chosen.err)
  t.is(
    codeOf(await rekey([...byPassphrase, '--new-passphrase-fd', '4', '--generate-passphrase'])),
    'ERR_CONFIG_INVALID',
  )
  await writeFile(join(place.root, 'short'), 'seven77')
  const short = await rekey(
    [...byPassphrase, '--new-passphrase-credential', 'short'],
    await readFile(generated, 'utf8'),
  )
  t.regex(messageOf(short), /8 characters or more/)
  t.is(codeOf(await run(['kms', 'restore', place.root, ...at, ...byPassphrase], PASSPHRASE)), 'ERR_FILE_UNREADABLE')
})

test('custodians unlock a KMS that runs, each by a command of his own', async (t) => {
  const { place, shares, init } = await setUp(t)
  t.is((await init('--custodians', '3', '--threshold', '2', '--shares', shares)).code, 0)
  const [first = '', second = ''] = (await readdir(shares)).sort().map((name) => join(shares, name))
  const policy = { platforms: [], images: [] }
  await using served = await serveKms({ ...place, policy, port: 0, insecureLoopback: true })
  const unlock = (path: string) => run(['kms', 'unlock', '--directory', place.directory, '--share', path])
  const one = await unlock(first)
  t.is(one.out, '1 of 2 shares: 1\n', one.err)
  t.regex((await run(['kms', 'status', '--directory', place.directory])).out, /^shares +of 1; others are needed$/m)
  t.true(served.isSealed)
  t.is((await unlock(second)).out, 'unlocked\n')
  t.false(served.isSealed)
})

test('a KMS that is unlocked is not rekeyed; sealed, it is, and what is new unlocks it', async (t) => {
  const { place, at, initByPassphrase } = await setUp(t)
  await initByPassphrase()
  const policy = { platforms: [], images: [] }
  const passphrase = Buffer.from(PASSPHRASE)
  await using served = await serveKms({ ...place, passphrase, policy, port: 0, insecureLoopback: true })
  const out = join(place.root, 'new')
  const rekey = () =>
    run(['kms', 'rekey', ...at, '--passphrase-fd', '3', '--generate-passphrase', '--passphrase-out', out], PASSPHRASE)
  const state = async () => (JSON.parse((await run(['kms', 'status', ...at])).out) as { state?: string }).state
  t.is(await state(), 'unlocked')
  t.is(codeOf(await rekey()), 'ERR_KMS_UNLOCKED')
  const glass = ['--reason', 'a fire', '--out', out, '--confirm', toHex(served.identity).slice(0, 16)]
  t.is(
    codeOf(await run(['kms', 'break-glass', ...at, '--passphrase-fd', '3', ...glass], PASSPHRASE)),
    'ERR_KMS_UNLOCKED',
  )
  const stale = ['kms', 'accept-stale', 'flow-1', ...at, '--passphrase-fd', '3', '--reason', 'lost']
  t.is(codeOf(await run(stale, PASSPHRASE)), 'ERR_KMS_UNLOCKED')
  t.false(served.isSealed)
  const running = ['--directory', place.directory]
  t.is((await run(['kms', 'seal', ...running])).code, 0)
  t.is(await state(), 'sealed')
  const rekeyed = await rekey()
  t.is(rekeyed.code, 0, rekeyed.err)
  const unlock = async (by: string) => (await run(['kms', 'unlock', ...running, '--passphrase-fd', '3'], by)).out
  t.is(await unlock(PASSPHRASE), '')
  t.is(await unlock(await readFile(out, 'utf8')), 'unlocked\n')
  t.false(served.isSealed)
})

test('a passphrase is generated into a file, and comes back as a systemd credential', async (t) => {
  const { place, at, init } = await setUp(t)
  const path = join(place.root, 'passphrase')
  t.is((await init('--generate-passphrase', '--passphrase-out', path)).code, 0)
  t.regex(await readFile(path, 'utf8'), /^([a-hjkmnp-z2-9]{5}-){5}[a-hjkmnp-z2-9]{5}\n$/)
  t.is((await stat(path)).mode & 0o777, 0o600)
  const check = (directory: string | undefined, name: string) => {
    const { CREDENTIALS_DIRECTORY: _, ...env } = process.env
    const given = directory === undefined ? env : { ...env, CREDENTIALS_DIRECTORY: directory }
    return run(['kms', 'restore', ...at, '--passphrase-credential', name], undefined, given)
  }
  t.is((await check(place.root, 'passphrase')).code, 0)
  for (const [directory, name] of [
    [undefined, 'passphrase'],
    [place.root, 'none'],
    [place.root, '../passphrase'],
  ] as const)
    t.is(codeOf(await check(directory, name)), 'ERR_CONFIG_INVALID')
})

test('ways to a passphrase that do not go together are refused, and nothing is made', async (t) => {
  const { place, init } = await setUp(t)
  for (const flags of [
    ['--custodians', '3'],
    ['--threshold', '2'],
    ['--custodians', '2', '--threshold', '3'],
    ['--custodians', '3', '--threshold', '2', '--generate-passphrase'],
    ['--shares', place.root],
    ['--passphrase-out', join(place.root, 'x')],
    ['--generate-passphrase', '--passphrase-fd', '3'],
  ])
    t.is(codeOf(await init(...flags)), 'ERR_CONFIG_INVALID', flags.join(' '))
  t.deepEqual(await readdir(place.directory), [])
})

test('backup tries its file, restore shows what it holds and asks; a downgrade needs the operator’s word', async (t) => {
  const { place, at, policy, initByPassphrase } = await setUp(t)
  const { identity } = JSON.parse((await initByPassphrase()).out) as { identity: string }
  const out = join(place.root, 'backup')
  const opened = [...at, '--passphrase-fd', '3']
  const backup = await run(['kms', 'backup', ...opened, '--policy', policy, '--out', out], PASSPHRASE)
  t.is(backup.code, 0, backup.err)
  const told = JSON.parse(backup.out) as { digest: string; keys: { key: string; fingerprint: string }[] }
  t.like(told, { file: out, restoreTest: 'passed', identity, flows: [] })
  t.is((await stat(out)).mode & 0o777, 0o600)
  const taken = await run(['kms', 'backup', ...opened, '--policy', policy, '--out', out], PASSPHRASE)
  t.is(codeOf(taken), 'ERR_FILE_EXISTS')
  const other = await makePlace(t)
  const elsewhere = ['--directory', other.directory, '--custody', other.custody, '--json', '--passphrase-fd', '3']
  const restore = (...flags: string[]) => run(['kms', 'restore', out, ...elsewhere, ...flags], PASSPHRASE)
  const there = join(other.root, 'policy.json')
  const restored = await restore('--yes', '--policy', there)
  t.is(restored.code, 0, restored.err)
  t.like(JSON.parse(restored.out), { identity, keys: told.keys, downgrades: [] })
  t.is(await readFile(there, 'utf8'), await readFile(policy, 'utf8'))
  const ledger = await FileLedger.open(nodeFileSystem, other.directory, Buffer.from(identity, 'hex'))
  const flow = parseFlowId('flow-1')
  await ledger.compareAndSwap(flow, undefined, flowState({ incarnation: 1 }))
  await ledger.close()
  const older = await restore('--yes')
  t.is(codeOf(older), 'ERR_DOWNGRADE')
  t.regex(messageOf(older), /does not know flow flow-1/)
  t.is((await restore('--yes', '--allow-downgrade')).code, 0)
  t.is((await FileLedger.inspect(nodeFileSystem, other.directory))?.flowCount, 0)
  await writeFile(out, 'keyrise')
  t.is(codeOf(await restore('--yes')), 'ERR_BACKUP_INVALID')
})

test('a backup beside a KMS that runs has its receipt from that KMS, and the KMS goes on', async (t) => {
  const { place, at, policy, initByPassphrase } = await setUp(t)
  await initByPassphrase()
  const options = { ...place, policy: { platforms: [], images: [] }, port: 0, insecureLoopback: true }
  await using served = await serveKms({ ...options, passphrase: asciiBytes(PASSPHRASE) })
  const out = join(place.root, 'backup')
  const backup = (...flags: string[]) =>
    run(['kms', 'backup', ...at, '--passphrase-fd', '3', '--policy', policy, ...flags], PASSPHRASE)
  const made = await backup('--out', out)
  t.is(made.code, 0, made.err)
  const { digest } = JSON.parse(made.out) as { digest: string }
  const receipts = (await FileLedger.inspect(nodeFileSystem, place.directory))?.receipts ?? []
  const last = decodeReceiptBody(splitReceipt(receipts.at(-1) ?? new Uint8Array(0)).body)
  t.like(last, { kind: 'backup', digest: fromHex(digest) })
  // It still has its log.
  const socket = join(place.directory, 'admin.sock')
  t.is((await askSocket(socket, '/v1/seal', { method: 'POST' })).status, 200)
  t.true(served.isSealed)
})

test('wrong passphrases make every command wait, and status says how long', async (t) => {
  const { place, at, initByPassphrase } = await setUp(t)
  await initByPassphrase()
  // Of a clock that is ahead: the whole wait is still to come, however long this test takes.
  const attempts = ['keyrise/v1/passphrase-attempts', { count: 20, lastMs: Date.now() + 1e9 }] as const
  await writeFile(join(place.directory, 'passphrase-attempts'), encodeCbor(attempts))
  t.like(JSON.parse((await run(['kms', 'status', ...at])).out), { waitMs: 900_000 })
  const refused = await run(['kms', 'rotate', ...at, '--passphrase-fd', '3'], PASSPHRASE)
  t.is(codeOf(refused), 'ERR_PASSPHRASE_THROTTLED')
  t.regex(messageOf(refused), /20 in a row; wait 900 s/)
})

withAge(
  'break-glass: after the fingerprint is confirmed and a receipt is written, age opens what is sealed to a root key',
  async (t) => {
    const { place, at, initByPassphrase } = await setUp(t)
    const { identity } = JSON.parse((await initByPassphrase()).out) as { identity: string }
    t.is((await run(['kms', 'rotate', ...at, '--passphrase-fd', '3'], PASSPHRASE)).code, 0)
    const out = join(place.root, 'identity.txt')
    const glass = (...flags: string[]) =>
      run(
        ['kms', 'break-glass', ...at, '--passphrase-fd', '3', '--reason', 'the KMS burnt', '--out', out, ...flags],
        PASSPHRASE,
      )
    const receiptCount = async () => (await FileLedger.inspect(nodeFileSystem, place.directory))?.receipts.length ?? 0
    const before = await receiptCount()
    t.is(codeOf(await glass('--confirm', '0'.repeat(16))), 'ERR_NOT_CONFIRMED')
    t.is(await receiptCount(), before)
    await t.throwsAsync(stat(out))
    const broken = await glass('--confirm', identity.slice(0, 16))
    t.is(broken.code, 0, broken.err)
    t.like(JSON.parse(broken.out), { file: out, keys: ['root@2', 'root@1'], reason: 'the KMS burnt' })
    t.is(await receiptCount(), before + 1)
    t.is((await stat(out)).mode & 0o777, 0o600)
    using keyring = Keyring.open(await readFile(place.custody), Secret.take(asciiBytes(PASSPHRASE)))
    for (const [index, { certificate }] of keyring.rootKeys.entries()) {
      const sealed = join(place.root, `sealed-${String(index)}.age`)
      const recipients = [x25519Recipient(certificate.encryptionKey)]
      await writeFile(sealed, sealEnvelope(asciiBytes('still here'), { recipients, random: nodeRandom }))
      t.is(execFileSync('age', ['-d', '-i', out, sealed], { encoding: 'utf8' }), 'still here')
    }
    t.is(codeOf(await glass('--confirm', identity.slice(0, 16))), 'ERR_FILE_EXISTS')
  },
)
