import test from 'ava'
import fc from 'fast-check'
import { encodeHeader, encodeMacInput, parseHeader, type Stanza } from '../../protocol/age-header.js'
import { concatBytes, copyBytes } from '../../protocol/bytes.js'
import { HEADER_SIZE_BYTES_MAX, STANZA_COUNT_MAX } from '../../protocol/limits.js'
import { codeOf, fromText, toText } from './fixtures.js'

const MAC_LINE = `--- ${'A'.repeat(43)}\n`
const header = (...lines: string[]): string => ['age-encryption.org/v1', ...lines, MAC_LINE].join('\n')

const argument = fc.string({
  unit: fc.integer({ min: 0x21, max: 0x7e }).map((code) => String.fromCharCode(code)),
  minLength: 1,
})
const stanza: fc.Arbitrary<Stanza> = fc.record({
  args: fc
    .array(argument, { minLength: 1, maxLength: 4 })
    .map(([type = 'x', ...rest]): Stanza['args'] => [type, ...rest]),
  body: fc.uint8Array({ maxLength: 200 }).map(copyBytes),
})

test('what is encoded is parsed again, to the byte, whatever follows it', (t) => {
  fc.assert(
    fc.property(
      fc.array(stanza, { minLength: 1, maxLength: STANZA_COUNT_MAX }),
      fc.uint8Array({ minLength: 32, maxLength: 32 }),
      fc.uint8Array({ maxLength: 100 }),
      (stanzas, mac, rest) => {
        const macInput = encodeMacInput(stanzas)
        const encoded = encodeHeader(macInput, mac)
        const parsed = parseHeader(concatBytes(encoded, rest))
        t.deepEqual(parsed, { stanzas, mac: copyBytes(mac), macInput, sizeBytes: encoded.length })
      },
    ),
  )
})

test('bodies wrap at 64 columns and end with a short line, an empty one where needed', (t) => {
  const linesOf = (size: number): number[] =>
    toText(encodeMacInput([{ args: ['x'], body: copyBytes(new Uint8Array(size)) }]))
      .split('\n')
      .slice(2, -1)
      .map((line) => line.length)
  t.deepEqual(linesOf(0), [0])
  t.deepEqual(linesOf(47), [63])
  t.deepEqual(linesOf(48), [64, 0])
  t.deepEqual(linesOf(49), [64, 2])
  t.deepEqual(linesOf(96), [64, 64, 0])
})

const REFUSED: Readonly<Record<string, string>> = {
  nothing: '',
  'another version': header('-> X', '').replace('v1', 'v2'),
  'a carriage return': header('-> X', '').replaceAll('\n', '\r\n'),
  'no stanza': header().replace('v1\n\n', 'v1\n'),
  'no space after the arrow': header('->X', ''),
  'no argument': header('-> ', ''),
  'two spaces': header('-> X  Y', ''),
  'a space at the end': header('-> X ', ''),
  'a tab': header('-> X\tY', ''),
  'a byte beyond ASCII': header('-> X\xe9', ''),
  'a NUL': header('-> X\0', ''),
  'a body line of 65 columns': header('-> X', 'A'.repeat(65), 'AAA'),
  'a body line of 68 columns': header('-> X', 'A'.repeat(68), ''),
  'a full body line without a short one': header('-> X', 'A'.repeat(64)),
  'a body of 65 columns of which the last is alone': header('-> X', 'A'.repeat(64), 'A'),
  padding: header('-> X', 'QQ=='),
  'non-canonical base64': header('-> X', 'QR'),
  base64url: header('-> X', '-_-_'),
  'a MAC of 31 bytes': header('-> X', '').replace(MAC_LINE, `--- ${'A'.repeat(42)}\n`),
  'a MAC of 33 bytes': header('-> X', '').replace(MAC_LINE, `--- ${'A'.repeat(44)}\n`),
  'a non-canonical MAC': header('-> X', '').replace(MAC_LINE, `--- ${'A'.repeat(42)}B\n`),
  'no space after the mark': header('-> X', '').replace('--- ', '---'),
  'an empty line': header('', '-> X', ''),
}
for (const [what, claimed] of Object.entries(REFUSED)) {
  test(`refused: ${what}`, (t) => {
    t.is(
      codeOf(() => parseHeader(copyBytes(Buffer.from(claimed, 'latin1')))),
      'ERR_HEADER_MALFORMED',
    )
  })
}

test('every truncation is refused', (t) => {
  const whole = fromText(header('-> X25519 abc', 'A'.repeat(64), 'AAAA', '-> y', ''))
  for (let size = 0; size < whole.length; size++) {
    t.is(
      codeOf(() => parseHeader(whole.subarray(0, size))),
      'ERR_HEADER_MALFORMED',
    )
  }
  t.notThrows(() => parseHeader(whole))
})

test('case 22: a stanza too many is refused, on both ways', (t) => {
  const stanzas = (count: number): Stanza[] =>
    Array.from({ length: count }, () => ({ args: ['x'], body: copyBytes(new Uint8Array(0)) }))
  const lines = (count: number): string[] => Array.from({ length: count }, () => '-> x\n')
  t.is(parseHeader(fromText(header(...lines(STANZA_COUNT_MAX)))).stanzas.length, STANZA_COUNT_MAX)
  for (const count of [STANZA_COUNT_MAX + 1, 100_000]) {
    t.is(
      codeOf(() => parseHeader(fromText(header(...lines(count))))),
      'ERR_HEADER_LIMIT',
    )
  }
  t.is(encodeMacInput(stanzas(STANZA_COUNT_MAX)).length > 0, true)
  t.is(
    codeOf(() => encodeMacInput(stanzas(STANZA_COUNT_MAX + 1))),
    'ERR_HEADER_LIMIT',
  )
})

test('a header may have the size of the limit, and not a byte more, on both ways', (t) => {
  const rest = header('-> x', '').length
  const ofSize = (size: number): string => header(`-> x${'y'.repeat(size - rest)}`, '')
  t.is(parseHeader(fromText(ofSize(HEADER_SIZE_BYTES_MAX))).sizeBytes, HEADER_SIZE_BYTES_MAX)
  t.is(
    codeOf(() => parseHeader(fromText(ofSize(HEADER_SIZE_BYTES_MAX + 1)))),
    'ERR_HEADER_LIMIT',
  )
  const encode = (size: number) => () =>
    encodeMacInput([{ args: [`x${'y'.repeat(size - rest)}`], body: copyBytes(new Uint8Array(0)) }])
  t.notThrows(encode(HEADER_SIZE_BYTES_MAX))
  t.is(codeOf(encode(HEADER_SIZE_BYTES_MAX + 1)), 'ERR_HEADER_LIMIT')
})

test('case 22: 100 MB that never end are refused without being read', (t) => {
  const claimed = new Uint8Array(100 * 1024 * 1024).fill(0x41)
  claimed.set(fromText('age-encryption.org/v1\n-> '))
  t.is(
    codeOf(() => parseHeader(claimed)),
    'ERR_HEADER_LIMIT',
  )
})

test('nothing is encoded that would be refused', (t) => {
  const encode = (...args: [string, ...string[]]) =>
    codeOf(() => encodeMacInput([{ args, body: copyBytes(new Uint8Array(0)) }]))
  t.is(encode('x', ''), 'ERR_HEADER_MALFORMED')
  t.is(encode('x', 'a b'), 'ERR_HEADER_MALFORMED')
  t.is(encode('x\n-> y'), 'ERR_HEADER_MALFORMED')
  t.is(encode('é'), 'ERR_HEADER_MALFORMED')
  t.is(
    codeOf(() => encodeMacInput([])),
    'ERR_HEADER_MALFORMED',
  )
})
