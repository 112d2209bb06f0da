import fc from 'fast-check'
import { KeyriseError } from '../../protocol/errors.js'

/** The code that `work` fails with; undefined when it does not. */
export const code = (work: () => unknown): string | undefined => {
  try {
    work()
    return undefined
  } catch (error) {
    return error instanceof KeyriseError ? error.code : String(error)
  }
}

export const anyText = fc.oneof(fc.string({ unit: 'binary' }), fc.string({ unit: 'grapheme', maxLength: 100 }))
/** Any value that may cross the boundary, with what its encodings change at. */
export const { value: anyValue } = fc.letrec((tie) => ({
  value: fc.oneof(
    { depthSize: 'small' },
    fc.constant(null),
    fc.boolean(),
    fc.double({ noNaN: true, noDefaultInfinity: true }),
    fc.float({ noNaN: true, noDefaultInfinity: true }),
    fc.integer().map((value) => value / 1024),
    fc.maxSafeInteger(),
    fc.constantFrom(-0, 23, 24, 255, 256, 65535, 65536, 2 ** 32 - 1, 2 ** 32, 2 ** 53 - 1, 2 ** 53, -(2 ** 53), 5e-324),
    fc.constantFrom(65504, 65505.5, 2 ** -24, 2 ** -25, 1.5 * 2 ** -23, 1e308),
    anyText,
    fc.uint8Array(),
    fc.uint8Array({ minLength: 200, maxLength: 300 }),
    fc.array(tie('value')),
    fc.dictionary(
      fc
        .oneof(anyText, fc.constantFrom('constructor', 'toString', 'then', 'length', 'a', 'b', 'aa'))
        .filter((key) => key !== '__proto__'),
      tie('value'),
      { noNullPrototype: true },
    ),
  ),
}))
