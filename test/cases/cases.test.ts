import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'ava'
import { ROOT } from '../project/rooms.js'

/**
 * What can go wrong with sealed state, in thirty cases. The tests of a case lie where its defence is tested, and have its number
 * in their titles: `npx ava --match='case*4*'` runs those of case 4.
 */
const CASES = [
  'cut short at every byte',
  'every bit flipped',
  'trailing bytes, a second final chunk',
  'chunks doubled, swapped, dropped',
  'the header of one with the payload of another',
  'forged by the host to the right recipient',
  'a valid object served as another',
  'another enclave’s object',
  'an older valid object',
  'the whole store rolled back',
  'two clones',
  'two enclaves recover one flow',
  'a crash between store and ledger, and another in the recovery; a ledger rolled back',
  'an empty store under a ledger that knows better',
  'a file of zero length, or full of NUL',
  'a keyring half written',
  'a key missing beside ciphertext',
  'a wrong passphrase',
  'a work factor of 31, 018, -1',
  'a passphrase mixed with other recipients',
  'a share of low order',
  'a header of 100 MB, of countless stanzas',
  'a full disk',
  'a failed fsync',
  'the KMS down in the middle of a recovery',
  'answers of the KMS doubled, late, out of order',
  'a handshake or a frame replayed',
  'evidence that binds another key or nonce',
  'the enclave killed in the middle of a call',
  'names that lead outside, planted links',
]

const TITLE = /test\(\s*['"`]cases? ((?:\d+(?:, )?)+):/g

const casesWithTests = async (): Promise<Set<number>> => {
  const found = new Set<number>()
  for (const file of await readdir(join(ROOT, 'test'), { recursive: true })) {
    if (!file.endsWith('.test.ts')) continue
    for (const [, numbers = ''] of (await readFile(join(ROOT, 'test', file), 'utf8')).matchAll(TITLE))
      for (const number of numbers.split(', ')) found.add(Number(number))
  }
  return found
}

test('each of the thirty cases has a test with its number', async (t) => {
  t.is(CASES.length, 30)
  const found = await casesWithTests()
  t.deepEqual(
    CASES.filter((_, index) => !found.has(index + 1)),
    [],
  )
})
