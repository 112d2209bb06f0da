import { existsSync, readFileSync } from 'node:fs'
import test from 'ava'
import { allocate, copyBytes, type Bytes } from '../../protocol/bytes.js'
import { x25519Agree } from '../../protocol/crypto/curves.js'
import { hkdf, hmac, openChaCha, sealChaCha, TAG_SIZE } from '../../protocol/crypto/primitives.js'
import { codeOf, secretOf } from './fixtures.js'

/** Project Wycheproof’s cases, where they lie beside the repository: they stay out of the project’s own tree. */
const DIRECTORY = '../shared/vectors/wycheproof'

interface Case {
  readonly tcId: number
  readonly comment: string
  readonly flags: readonly string[]
  readonly result: 'valid' | 'invalid' | 'acceptable'
  readonly [field: string]: unknown
}
interface Group {
  readonly tests: readonly Case[]
  readonly [field: string]: unknown
}

const bytesOf = (vector: Case, field: string): Bytes => copyBytes(Buffer.from(vector[field] as string, 'hex'))

const cases = (file: string, applies: (group: Group) => boolean, check: (vector: Case) => boolean): void => {
  const path = `${DIRECTORY}/${file}`
  if (!existsSync(path)) {
    test.skip(`${file}: absent`, () => undefined)
    return
  }
  test(file, (t) => {
    const { testGroups } = JSON.parse(readFileSync(path, 'utf8')) as { testGroups: Group[] }
    const vectors = testGroups.filter(applies).flatMap(({ tests }) => tests)
    const wrong = vectors.filter((vector) => !check(vector)).map(({ tcId, comment }) => `${String(tcId)} ${comment}`)
    t.deepEqual(wrong, [])
    t.true(vectors.length > 50)
    t.log(`${String(vectors.length)} cases`)
  })
}
const every = () => true

cases('x25519_test.json', every, (vector) => {
  const agree = () => {
    using shared = x25519Agree(secretOf(bytesOf(vector, 'private')), bytesOf(vector, 'public'))
    return shared.equals(secretOf(bytesOf(vector, 'shared')))
  }
  // RFC 7748 §6.1 lets implementations refuse an all-zero result; age demands it.
  if (!vector.flags.includes('ZeroSharedSecret')) return agree()
  return codeOf(agree) === 'ERR_KEY_INVALID'
})

cases('hmac_sha256_test.json', every, (vector) => {
  const expected = bytesOf(vector, 'tag')
  const actual = hmac(bytesOf(vector, 'key'), bytesOf(vector, 'msg')).subarray(0, expected.length)
  return Buffer.from(actual).equals(expected) === (vector.result === 'valid')
})

cases('hkdf_sha256_test.json', every, (vector) => {
  const derive = () =>
    hkdf(bytesOf(vector, 'ikm'), bytesOf(vector, 'salt'), bytesOf(vector, 'info'), Number(vector['size']))
  if (vector.flags.includes('SizeTooLarge')) {
    try {
      derive()
      return false
    } catch (error) {
      return error instanceof RangeError
    }
  }
  return Buffer.from(derive()).equals(bytesOf(vector, 'okm'))
})

cases(
  'chacha20_poly1305_test.json',
  ({ ivSize }) => ivSize === 96,
  (vector) => {
    // age has no associated data, so a case with some must not open.
    const isOurs = vector.result === 'valid' && vector['aad'] === ''
    const sealed = copyBytes(Buffer.from(`${vector['ct'] as string}${vector['tag'] as string}`, 'hex'))
    const opened = allocate(sealed.length - TAG_SIZE)
    const [key, nonce, message] = [bytesOf(vector, 'key'), bytesOf(vector, 'iv'), bytesOf(vector, 'msg')]
    if (openChaCha(key, nonce, sealed, opened) !== isOurs) return false
    if (!isOurs) return opened.every((byte) => byte === 0)
    const resealed = allocate(sealed.length)
    sealChaCha(key, nonce, message, resealed)
    return Buffer.from(opened).equals(message) && Buffer.from(resealed).equals(sealed)
  },
)
