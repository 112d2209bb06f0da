import { base64nopad } from '@scure/base'
import test from 'ava'
import fc from 'fast-check'
import { asciiBytes, copyBytes } from '../../protocol/bytes.js'
import { decodeBase64Lines, decodeBase64NoPad, encodeBase64NoPad } from '../../protocol/base64.js'

/** @scure/base is the reference. */
const reference = (text: string): Uint8Array | undefined => {
  try {
    return copyBytes(base64nopad.decode(text))
  } catch {
    return undefined
  }
}

test('bytes become the text that the reference gives, and come back', (t) => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
      const text = encodeBase64NoPad(bytes)
      t.is(text, base64nopad.encode(bytes))
      t.deepEqual(decodeBase64NoPad(text), copyBytes(bytes))
    }),
  )
})

test('a text is read as the reference reads it, or refused as it refuses', (t) => {
  const digit = fc.constantFrom(
    'A',
    'B',
    'E',
    'I',
    'Q',
    'g',
    'w',
    '4',
    '8',
    '9',
    '/',
    '+',
    '-',
    '_',
    '=',
    ' ',
    '\n',
    '\u0080',
    'é',
  )
  fc.assert(
    fc.property(fc.array(digit, { maxLength: 9 }), (digits) => {
      const text = digits.join('')
      t.deepEqual(decodeBase64NoPad(text), reference(text))
    }),
    { numRuns: 2000 },
  )
  for (let length = 0; length <= 5; length++)
    for (const last of 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/') {
      const text = `${'A'.repeat(length)}${last}`
      t.deepEqual(decodeBase64NoPad(text), reference(text))
    }
})

test('lines are read as one text is, and no byte in a digit’s place is skipped', (t) => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), fc.nat(), fc.integer({ min: 0, max: 255 }), (bytes, at, byte) => {
      const lines = asciiBytes(encodeBase64NoPad(bytes).replace(/.{64}/g, '$&\n'))
      t.deepEqual(decodeBase64Lines(lines, 64), copyBytes(bytes))
      const place = at % (lines.length + 1)
      if (place === lines.length || place % 65 === 64) return
      lines[place] = byte
      const text = String.fromCharCode(...lines.filter((_, index) => index % 65 !== 64))
      t.deepEqual(decodeBase64Lines(lines, 64), reference(text))
    }),
    { numRuns: 1000 },
  )
})
