import { spawnSync, type ChildProcess } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { chmod, link, lstat, mkdir, readFile, rename, stat, symlink, writeFile } from 'node:fs/promises'
import test, { type ExecutionContext } from 'ava'
import { nodeRandom } from '../../protocol/crypto/primitives.js'
import { sealEnvelope } from '../../protocol/crypto/envelope.js'
import { parseX25519Recipient, x25519Recipient } from '../../protocol/crypto/recipients.js'
import { outputFailure } from '../../cli/output.js'
import { BrokenPipe } from '../../cli/terminal.js'
import { codeOf, envelope, Place, start } from './envelopes.js'

const MIB = 1024 * 1024
const CHUNK_SIZE = 64 * 1024
const SEALED_CHUNK_SIZE = CHUNK_SIZE + 16
/** Opened in a stream, and opened by several threads. */
const SIZES = { small: 5 * CHUNK_SIZE, large: 34 * MIB + 12_345 } as const

const makeSealed = async (t: ExecutionContext, sizeBytes: number) => {
  const place = await Place.make(t)
  const { file: key, recipient } = await place.key()
  const plaintext = randomBytes(sizeBytes)
  const recipients = [x25519Recipient(parseX25519Recipient(recipient))]
  const sealed = Buffer.from(sealEnvelope(plaintext, { recipients, random: nodeRandom }).buffer)
  const file = await place.write('a.age', sealed)
  const chunksOffset = sealed.length - sizeBytes - 16 * Math.ceil(sizeBytes / CHUNK_SIZE)
  return { place, key, recipient, plaintext, sealed, file, chunksOffset }
}

for (const [name, sizeBytes] of Object.entries(SIZES)) {
  test(`a ${name} file opens into a file, a pipe and a device`, async (t) => {
    const { place, key, plaintext, file } = await makeSealed(t, sizeBytes)
    const out = place.path('out')
    t.deepEqual(await envelope(['open', '-i', key, '-o', out, file]), { code: 0, out: Buffer.alloc(0), err: '' })
    t.true((await place.read('out')).equals(plaintext))
    t.is((await stat(out)).mode & 0o777, 0o600)
    const piped = await envelope(['open', '-i', key, '--json', file])
    t.true(piped.out.equals(plaintext))
    t.deepEqual(JSON.parse(piped.err), { file: null, sizeBytes })
    t.is((await envelope(['open', '-i', key, '-o', '/dev/null', file])).code, 0)
  })

  test(`a ${name} file that is damaged or cut: nothing under the output’s name, and of a pipe a beginning at most`, async (t) => {
    const { place, key, plaintext, sealed, chunksOffset } = await makeSealed(t, sizeBytes)
    const lastChunk = chunksOffset + Math.floor((sizeBytes - 1) / CHUNK_SIZE) * SEALED_CHUNK_SIZE
    const flipped = (offset: number): Buffer => {
      const copy = Buffer.from(sealed)
      copy.writeUInt8(copy.readUInt8(offset) ^ 1, offset)
      return copy
    }
    const cases = {
      first: { file: flipped(chunksOffset), code: 'ERR_PAYLOAD_INVALID' },
      middle: { file: flipped(chunksOffset + 3 * SEALED_CHUNK_SIZE), code: 'ERR_PAYLOAD_INVALID' },
      last: { file: flipped(sealed.length - 1), code: 'ERR_PAYLOAD_INVALID' },
      boundary: { file: sealed.subarray(0, lastChunk), code: 'ERR_PAYLOAD_TRUNCATED' },
      cut: { file: sealed.subarray(0, sealed.length - 1), code: 'ERR_PAYLOAD_INVALID' },
      nonce: { file: sealed.subarray(0, chunksOffset - 1), code: 'ERR_HEADER_MALFORMED' },
    }
    const names = await place.names()
    for (const [what, { file, code }] of Object.entries(cases)) {
      await place.write('a.age', file)
      const toFile = await envelope(['open', '--json', '-i', key, '-o', place.path('out'), place.path('a.age')])
      t.deepEqual([toFile.code, codeOf(toFile)], [1, code], what)
      t.deepEqual(await place.names(), names)
      const toPipe = await envelope(['open', '--json', '-i', key, place.path('a.age')])
      t.deepEqual([toPipe.code, codeOf(toPipe)], [1, code], what)
      t.true(toPipe.out.length < sizeBytes && toPipe.out.equals(plaintext.subarray(0, toPipe.out.length)))
      t.is(toPipe.err.includes('a beginning only'), toPipe.out.length > 0)
    }
  })
}

test('of a large file that was cut nothing at all is released, since its last chunk is verified first', async (t) => {
  const { place, key, sealed } = await makeSealed(t, SIZES.large)
  await place.write('a.age', sealed.subarray(0, sealed.length - SEALED_CHUNK_SIZE))
  const outcome = await envelope(['open', '--json', '-i', key, place.path('a.age')])
  t.deepEqual([outcome.code, outcome.out.length], [1, 0])
})

test('an output that exists is refused unless it is forced, and then replaced whole; a link to it stays one', async (t) => {
  const { place, key, recipient, plaintext, file } = await makeSealed(t, 100)
  const out = await place.write('out', 'precious')
  for (const command of [
    ['open', '-i', key, '-o', out, file],
    ['seal', '-r', recipient, '-o', out, key],
    ['rewrap', '-i', key, '-r', recipient, '-o', out, file],
  ]) {
    const refused = await envelope([...command, '--json'])
    t.deepEqual([refused.code, codeOf(refused)], [1, 'ERR_FILE_EXISTS'], command[0])
    t.is((await place.read('out')).toString(), 'precious')
  }
  await symlink(out, place.path('link'))
  t.is((await envelope(['open', '-i', key, '--force', '-o', place.path('link'), file])).code, 0)
  t.true((await place.read('out')).equals(plaintext))
  t.true((await lstat(place.path('link'))).isSymbolicLink())
})

test('a file is never its own output, whatever it is called', async (t) => {
  const { place, key, recipient, sealed, file } = await makeSealed(t, 100)
  await link(file, place.path('same'))
  for (const out of [file, `${place.directory}/./a.age`, place.path('same')]) {
    for (const command of [
      ['open', '-i', key],
      ['seal', '-r', recipient],
      ['rewrap', '-i', key, '-r', recipient],
    ]) {
      const refused = await envelope([...command, '--json', '--force', '-o', out, file])
      t.is(codeOf(refused), 'ERR_FILE_EXISTS')
    }
  }
  t.true((await place.read('a.age')).equals(sealed))
})

test('what cannot be read or written is said with the system’s word', async (t) => {
  const { place, key, recipient, file } = await makeSealed(t, 100)
  const said = async (...flags: string[]) => {
    const outcome = await envelope([...flags, '--json'])
    return [codeOf(outcome), /\((E\w+)\)/.exec(outcome.err)?.[1]]
  }
  t.deepEqual(await said('open', '-i', key, '-o', place.path('no/out'), file), ['ERR_FILE_UNWRITABLE', 'ENOENT'])
  t.deepEqual(await said('open', '-i', key, '-o', place.directory, file), ['ERR_FILE_UNWRITABLE', 'EISDIR'])
  t.deepEqual(await said('seal', '-r', recipient, place.directory), ['ERR_FILE_UNREADABLE', 'EISDIR'])
  t.deepEqual(await said('inspect', place.path('none')), ['ERR_FILE_UNREADABLE', 'ENOENT'])
  if (existsSync('/dev/full')) {
    t.deepEqual(await said('open', '-i', key, '-o', '/dev/full', file), ['ERR_FILE_UNWRITABLE', 'ENOSPC'])
  }
})

test('rewrap keeps a file’s permissions', async (t) => {
  const { place, key, recipient, file } = await makeSealed(t, 100)
  await chmod(file, 0o640)
  t.is((await envelope(['rewrap', '-i', key, '-r', recipient, file])).code, 0)
  t.is((await stat(place.path('a.age'))).mode & 0o777, 0o640)
})

test('a name as long as the file system takes can be written', async (t) => {
  const { place, recipient, file } = await makeSealed(t, 100)
  for (const name of ['n'.repeat(255), 'ü'.repeat(127)]) {
    const out = place.path(name)
    t.is((await envelope(['seal', '-r', recipient, '-o', out, file])).code, 0)
    t.is((await envelope(['seal', '-r', recipient, '-o', out, '--force', file])).code, 0)
  }
})

const ended = async (child: ChildProcess): Promise<[number | null, NodeJS.Signals | null]> => {
  if (child.exitCode === null && child.signalCode === null) await once(child, 'close')
  return [child.exitCode, child.signalCode]
}

/** Until `seen`, looked at again and again, is true. */
const until = async (seen: () => Promise<boolean>): Promise<void> => {
  while (!(await seen())) await new Promise((resolve) => setTimeout(resolve, 20))
}

const CHANGES: Record<string, (file: string, other: string) => Promise<void>> = {
  replaced: (file, other) => rename(other, file),
  written: (file) => writeFile(file, 'newer'),
}
for (const [how, change] of Object.entries(CHANGES)) {
  test(`rewrap keeps what a file was ${how} by meanwhile, unless it is forced`, async (t) => {
    const { place, key, sealed, file } = await makeSealed(t, 100)
    for (const force of [[], ['--force']]) {
      await writeFile(file, sealed)
      const other = await place.write('other', 'newer')
      const names = (await place.names()).filter((name) => how === 'written' || name !== 'other')
      const child = start(['rewrap', '-i', key, '--new-passphrase-fd', '0', '--work-factor', '10', ...force, file])
      await until(async () => (await place.names()).some((name) => name.endsWith('.tmp')))
      await change(file, other)
      child.stdin?.end('words\n')
      const [code] = await ended(child)
      t.deepEqual(await place.names(), names)
      // What was written into the file itself is another payload: it is never replaced by the old one.
      const isKept = force.length === 0 || how === 'written'
      t.is(code, isKept ? 1 : 0)
      t.is((await place.read('a.age')).toString() === 'newer', isKept)
    }
  })
}

for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  test(`${signal} ends a command by that signal, and leaves no partial output`, async (t) => {
    const place = await Place.make(t)
    const { recipient } = await place.key()
    const names = await place.names()
    const child = start(['seal', '-r', recipient, '-o', place.path('out')])
    child.stdin?.write(randomBytes(MIB))
    await until(async () => {
      const [partial] = (await place.names()).filter((name) => name.endsWith('.tmp'))
      return partial !== undefined && (await stat(place.path(partial))).size > CHUNK_SIZE
    })
    child.kill(signal)
    t.deepEqual(await ended(child), [null, signal])
    t.deepEqual(await place.names(), names)
  })
}

test('who stops to read ends the command without a word', async (t) => {
  const { key, file } = await makeSealed(t, SIZES.large)
  for (const flags of [
    ['open', '-i', key, file],
    ['open', '-i', key],
  ]) {
    const child = start(flags)
    if (flags.length === 3) child.stdin?.end(await readFile(file))
    let err = ''
    child.stderr?.setEncoding('utf8').on('data', (text: string) => (err += text))
    child.stdout?.once('data', () => child.stdout?.destroy())
    t.deepEqual(await ended(child), [141, null])
    t.is(err, '')
  }
})

test('a reader who goes away with bytes unread is one who stopped', (t) => {
  // The socket that a parent process gave as standard output says so when it was full: a matter of the moment.
  for (const code of ['EPIPE', 'ECONNRESET'])
    t.true(outputFailure('out', Object.assign(new Error(code), { code })) instanceof BrokenPipe, code)
  t.like(outputFailure('out', Object.assign(new Error(), { code: 'EIO' })), { code: 'ERR_FILE_UNWRITABLE' })
})

/** The most memory that a process ever had, in MiB: Linux’s count. */
const peakMemory = async (child: ChildProcess): Promise<number> => {
  const status = await readFile(`/proc/${String(child.pid)}/status`, 'utf8')
  return Number(/VmHWM:\s*(\d+) kB/.exec(status)?.[1]) / 1024
}
const onLinux = existsSync('/proc/self/status') ? test : test.skip
const STREAM_SIZE_MIB = 400
const PEAK_MIB_MAX = 250

onLinux('a stream longer than a process’s memory is sealed and opened in constant memory', async (t) => {
  const place = await Place.make(t)
  const { file: key, recipient } = await place.key()
  const [sealer, opener] = [start(['seal', '-r', recipient]), start(['open', '-i', key])]
  sealer.stdout?.pipe(opener.stdin as NodeJS.WritableStream)
  let sizeBytes = 0
  opener.stdout?.on('data', (bytes: Buffer) => (sizeBytes += bytes.length))
  const piece = randomBytes(MIB)
  for (let index = 0; index < STREAM_SIZE_MIB; index++) {
    if (sealer.stdin?.write(piece) === false) await once(sealer.stdin, 'drain')
  }
  await until(async () => sizeBytes > (STREAM_SIZE_MIB - 8) * MIB)
  const peaks = await Promise.all([sealer, opener].map(peakMemory))
  sealer.stdin?.end()
  t.deepEqual(await ended(opener), [0, null])
  t.is(sizeBytes, STREAM_SIZE_MIB * MIB)
  t.true(Math.max(...peaks) < PEAK_MIB_MAX, String(peaks))
})

test('a disk that fills up: said so, and nothing is left on it', async (t) => {
  const place = await Place.make(t)
  const { recipient } = await place.key()
  const plain = await place.random('plain', 2 * MIB)
  const disk = place.path('disk')
  await mkdir(disk)
  if (spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', disk], { stdio: 'ignore' }).status !== 0) {
    t.log('skipped: this user may not mount a small file system')
    t.pass()
    return
  }
  try {
    const outcome = await envelope(['seal', '--json', '-r', recipient, '-o', `${disk}/out`, plain])
    t.is(codeOf(outcome), 'ERR_FILE_UNWRITABLE')
    t.regex(outcome.err, /ENOSPC/)
    t.deepEqual(spawnSync('ls', ['-A', disk]).stdout.toString(), '')
  } finally {
    spawnSync('umount', [disk])
  }
})
