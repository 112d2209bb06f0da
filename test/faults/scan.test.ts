import test from 'ava'
import { randomBytes } from 'node:crypto'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { inspect } from 'node:util'
import { scanForSecrets } from '../../faults/scan.js'

/** Noise with text in it, so that a planted leak stands neither first nor last nor on a round offset. */
const surrounded = (planted: Uint8Array | string): Buffer =>
  Buffer.concat([
    randomBytes(1237),
    Buffer.from('{"log":"'),
    Buffer.from(planted),
    Buffer.from('"}\n'),
    randomBytes(811),
  ])

const withFile = async <T>(content: Uint8Array, use: (path: string) => Promise<T>): Promise<T> => {
  const directory = await mkdtemp(join(tmpdir(), 'keyrise-scan-'))
  try {
    const path = join(directory, 'file')
    await writeFile(path, content)
    return await use(path)
  } finally {
    await rm(directory, { recursive: true })
  }
}

const secret = randomBytes(48)
const key = { name: 'key', bytes: secret }
const shifted = (count: number): Buffer => Buffer.concat([randomBytes(count), secret, randomBytes(7)])
const hex = secret.toString('hex')

const PLANTED = {
  'raw bytes': ['raw', secret],
  'raw bytes in part': ['raw', secret.subarray(11, 11 + 23)],
  'lower-case hex': ['hex', hex],
  'upper-case hex': ['hex', hex.toUpperCase()],
  'hex after an odd digit': ['hex', `f${hex}`],
  'hex with colons': ['hex', hex.match(/../g)?.join(':') ?? ''],
  'a printed Buffer': ['hex', inspect(secret)],
  base64: ['base64', secret.toString('base64')],
  base64url: ['base64', secret.toString('base64url')],
  'base64, one byte off': ['base64', shifted(1).toString('base64')],
  'base64, two bytes off': ['base64', shifted(2).toString('base64')],
  'base64 in lines': [
    'base64',
    secret
      .toString('base64')
      .match(/.{1,21}/g)
      ?.join('\r\n') ?? '',
  ],
  'base64 in part': ['base64', secret.toString('base64').slice(3, 40)],
  'a JSON array': ['json', JSON.stringify([...secret])],
  'a JSON array in lines': ['json', JSON.stringify([...secret], null, 2)],
  'a Buffer as JSON': ['json', JSON.stringify(secret)],
  'a Uint8Array as JSON': ['json', JSON.stringify(new Uint8Array(secret))],
  'a Uint8Array as JSON, in lines': ['json', JSON.stringify({ key: new Uint8Array(secret) }, null, 4)],
  'a printed Uint8Array': ['json', inspect(new Uint8Array(secret))],
} as const

for (const [title, [form, planted]] of Object.entries(PLANTED)) {
  test(`finds ${title}`, async (t) => {
    const { leaks } = await withFile(surrounded(planted), (path) => scanForSecrets([path], [key]))
    t.true(
      leaks.some((leak) => leak.secret === 'key' && leak.form === form),
      inspect(leaks),
    )
  })
}

/** One window long: it is missed as soon as any cut goes through it. */
const short = { name: 'short', bytes: Uint8Array.from({ length: 16 }, (_, index) => 100 + 7 * index) }
const CHUNK_SIZE = 4 * 1024 * 1024
const PIECE_SIZE = 64 * 1024

test('says where a raw copy lies, wherever the cut between two chunks goes through it', async (t) => {
  for (let cut = 0; cut <= 16; cut += 4) {
    const content = Buffer.concat([Buffer.alloc(CHUNK_SIZE - cut), short.bytes, randomBytes(100)])
    const result = await withFile(content, (path) => scanForSecrets([path], [short]))
    t.deepEqual(
      result.leaks.map(({ form, offset }) => ({ form, offset })),
      [{ form: 'raw', offset: CHUNK_SIZE - cut }],
    )
    t.is(result.bytesScanned, content.length)
  }
})

test('finds text wherever a cut goes through it: between two chunks, between two pieces of a run', async (t) => {
  const numbers = (count: number): string => '100,'.repeat(count)
  // Four symbols hold one number, or three bytes in base64.
  const texts = [PIECE_SIZE, CHUNK_SIZE].flatMap((size) => [
    `${numbers(size / 4 - 8)}${[...short.bytes].join()},${numbers(50)}`,
    Buffer.concat([Buffer.alloc((size / 4) * 3 - 8), short.bytes, Buffer.alloc(50)]).toString('base64'),
    Buffer.concat([Buffer.alloc(size / 2 - 8), short.bytes, Buffer.alloc(50)]).toString('hex'),
  ])
  for (const text of texts) {
    const { leaks } = await withFile(Buffer.from(text), (path) => scanForSecrets([path], [short]))
    t.is(leaks.length, 1, text.slice(0, 8))
  }
})

test('counts a secret once for each file and form', async (t) => {
  const content = surrounded(Buffer.concat([secret, secret, Buffer.from(hex)]))
  const { leaks } = await withFile(content, (path) => scanForSecrets([path], [key]))
  t.deepEqual(leaks.map(({ form }) => form).sort(), ['hex', 'raw'])
})

test('finds nothing where nothing is: noise, text, another key, a copy below a window', async (t) => {
  const content = Buffer.concat([
    randomBytes(1_000_000),
    Buffer.from(JSON.stringify({ other: randomBytes(48).toString('hex'), list: [...randomBytes(48)] })),
    secret.subarray(0, 15),
  ])
  const { leaks, unsearchable } = await withFile(content, (path) => scanForSecrets([path], [key]))
  t.deepEqual(leaks, [])
  t.deepEqual(unsearchable, [])
})

test('names what it cannot tell from other data', async (t) => {
  const zeros = { name: 'zeros', bytes: new Uint8Array(64) }
  const stub = { name: 'stub', bytes: randomBytes(15) }
  const result = await withFile(Buffer.alloc(1000), (path) => scanForSecrets([path], [zeros, stub, key]))
  t.deepEqual(result.unsearchable, ['zeros', 'stub'])
  t.is(result.secretsSearched, 1)
  t.deepEqual(result.leaks, [])
})
