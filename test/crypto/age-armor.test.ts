import * as age from 'age-encryption'
import test from 'ava'
import fc from 'fast-check'
import { armorReader, armorWriter, decodeArmor, encodeArmor, isArmored } from '../../protocol/age-armor.js'
import { pull } from '../../protocol/age-stream.js'
import { concatBytes, copyBytes } from '../../protocol/bytes.js'
import { codeOf, codeOfAsync, collect, fromText, inPieces, pushAll, randomBytes, toText } from './fixtures.js'

const [BEGIN, END] = ['-----BEGIN AGE ENCRYPTED FILE-----', '-----END AGE ENCRYPTED FILE-----'] as const
const armor = (...lines: string[]): string => [BEGIN, ...lines, END, ''].join('\n')
const sizes = fc.oneof(fc.nat({ max: 200 }), fc.constantFrom(48 * 1024 - 1, 48 * 1024, 48 * 1024 + 1, 100_000))

test('armor is typage’s, both ways, however it is cut into pieces', (t) => {
  fc.assert(
    fc.property(sizes, fc.integer({ min: 1, max: 70_000 }), (size, pieceSize) => {
      const bytes = randomBytes(size)
      const text = age.armor.encode(bytes)
      t.is(toText(encodeArmor(bytes)), text)
      t.deepEqual(decodeArmor(fromText(text)), bytes)
      const [written, read] = [collect(), collect()]
      pushAll(armorWriter(written.sink), bytes, () => pieceSize)
      t.is(toText(written.taken()), text)
      pushAll(armorReader(read.sink), fromText(text), () => pieceSize)
      t.deepEqual(read.taken(), bytes)
    }),
    { numRuns: 40 },
  )
})

test('white space around the block, CRLF and a missing last line end are read', (t) => {
  const bytes = randomBytes(100)
  const text = toText(encodeArmor(bytes))
  for (const other of [text.trimEnd(), ` \r\n\t${text}\n \r\n`, text.replaceAll('\n', '\r\n')])
    t.deepEqual(decodeArmor(fromText(other)), bytes)
  t.deepEqual(decodeArmor(fromText(armor())), copyBytes(new Uint8Array(0)))
})

const FULL = 'A'.repeat(64)
const REFUSED: Readonly<Record<string, string>> = {
  nothing: '',
  'white space only': ' \n',
  'no begin': armor('AAAA').replace(BEGIN, ''),
  'another label': armor('AAAA').replaceAll('AGE', 'PGP'),
  'a label in lower case': armor('AAAA').replaceAll('AGE', 'age'),
  'no end': armor('AAAA').replace(END, ''),
  'half an end': armor('AAAA').replace(END, END.slice(0, -1)),
  'a header': armor('Version: 1', '', 'AAAA'),
  'an empty line': armor('', 'AAAA'),
  'an empty last line': armor(FULL, ''),
  'a short line in the middle': armor('AAAA', 'AAAA'),
  'a long line': armor(`${FULL}AAAA`),
  'a padded line in the middle': armor(`${'A'.repeat(63)}=`, 'AAAA'),
  'no padding': armor('AAA'),
  'padding across lines': armor('AA=', '='),
  'padding alone': armor('===='),
  'bits that do not count': armor('AB=='),
  base64url: armor('-_-_'),
  'a space at the end of a line': armor(`${FULL} `),
  'a space at the start of a line': armor(' AAAA'),
  'a carriage return in a line': armor('AA\rAA'),
  'something before': `x\n${armor('AAAA')}`,
  'something after': `${armor('AAAA')}x`,
  'a second block': armor('AAAA') + armor('AAAA'),
  'a checksum': armor('AAAA', '=AAAA'),
  'a byte beyond ASCII': armor('AAA\xc1'),
  'white space without end': ' '.repeat(1025) + armor('AAAA'),
  'white space without end, after': armor('AAAA') + ' '.repeat(1025),
}
for (const [what, text] of Object.entries(REFUSED)) {
  test(`refused, whole and byte by byte: ${what}`, (t) => {
    const claimed = copyBytes(Buffer.from(text, 'latin1'))
    t.is(
      codeOf(() => decodeArmor(claimed)),
      'ERR_ARMOR_INVALID',
    )
    const { sink, isEnded } = collect()
    t.is(
      codeOf(() => {
        pushAll(armorReader(sink), claimed, () => 1)
      }),
      'ERR_ARMOR_INVALID',
    )
    t.false(isEnded())
  })
}

test('a line that never ends is refused without being kept', (t) => {
  const { sink } = collect()
  const reader = armorReader(sink)
  t.is(
    codeOf(() => {
      for (let count = 0; count < 1000; count++) reader.push(new Uint8Array(1_000_000).fill(0x41))
    }),
    'ERR_ARMOR_INVALID',
  )
})

test('armor and a binary file are told apart by their first bytes', (t) => {
  t.true(isArmored(fromText(armor())))
  t.true(isArmored(fromText(` \r\n${BEGIN}`)))
  t.false(isArmored(fromText('age-encryption.org/v1\n')))
  t.false(isArmored(fromText('')))
})

test('a stage takes nothing after its end, a failure or its disposal', (t) => {
  const ways = [
    (stage: ReturnType<typeof armorReader>) => {
      pushAll(stage, fromText(armor('AAAA')))
    },
    (stage: ReturnType<typeof armorReader>) => {
      t.throws(() => {
        stage.push(fromText('x'.repeat(100)))
      })
    },
    (stage: ReturnType<typeof armorReader>) => {
      stage[Symbol.dispose]()
    },
  ]
  for (const over of ways) {
    let disposals = 0
    const stage = armorReader({ ...collect().sink, [Symbol.dispose]: () => disposals++ })
    over(stage)
    t.is(disposals, 1)
    t.throws(
      () => {
        stage.push(fromText('x'))
      },
      { message: /after its end/ },
    )
    t.throws(
      () => {
        stage.end()
      },
      { message: /after its end/ },
    )
    stage[Symbol.dispose]()
    t.is(disposals, 1)
  }
})

test('what is pulled comes as it is asked for, and what was good comes before the failure', async (t) => {
  const bytes = randomBytes(1000)
  let asked = 0
  const source = function* () {
    for (const piece of inPieces(encodeArmor(bytes), () => 65)) {
      asked++
      yield piece
    }
  }
  const parts: Uint8Array[] = []
  for await (const part of pull(source(), armorReader)) {
    parts.push(part)
    if (parts.length === 2) t.true(asked < 5)
  }
  t.deepEqual(concatBytes(...parts), bytes)

  const cut: Uint8Array[] = []
  const refused = await codeOfAsync(async () => {
    for await (const part of pull([encodeArmor(bytes).subarray(0, 800)], armorReader)) cut.push(part)
  })
  t.is(refused, 'ERR_ARMOR_INVALID')
  t.deepEqual(concatBytes(...cut), bytes.subarray(0, cut[0]?.length))
})

test('leaving a pull early gives up the stage', async (t) => {
  let disposals = 0
  const stage = (next: Parameters<typeof armorReader>[0]) =>
    armorReader({ ...next, push: (bytes) => next.push(bytes), [Symbol.dispose]: () => disposals++ })
  for await (const _ of pull(
    inPieces(encodeArmor(randomBytes(1000)), () => 100),
    stage,
  ))
    break
  t.is(disposals, 1)
})
