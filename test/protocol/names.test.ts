import test from 'ava'
import { NAME_LENGTH_MAX } from '../../protocol/limits.js'
import { ENTRY_KINDS, kindOf, parseEntryName, parseFlowId, parsePath } from '../../protocol/names.js'

test('names of letters, digits and . _ - are taken as they are', (t) => {
  for (const name of ['a', '0', 'round-3', 'credit-2026', 'A.b_c-d', 'a/b/c.age', 'x'.repeat(NAME_LENGTH_MAX)])
    t.is(parsePath(name), name)
  const longest: string = parseFlowId('x'.repeat(64))
  t.is(longest, 'x'.repeat(64))
})

const HOSTILE: readonly unknown[] = [
  '',
  '.',
  '..',
  '../x',
  'a/../b',
  'a/.b',
  '/a',
  'a/',
  'a//b',
  'a\\b',
  'a\0b',
  'a\n',
  'a b',
  '-a',
  '_a',
  'é',
  '%2e%2e',
  'x'.repeat(NAME_LENGTH_MAX + 1),
  undefined,
  null,
  7,
  ['a'],
  { toString: () => 'a' },
]

test('case 30: what could leave a directory, or look like something else, is refused', (t) => {
  for (const claimed of HOSTILE) {
    t.throws(() => parsePath(claimed), { code: 'ERR_NAME_INVALID' }, String(claimed))
    t.throws(() => parseFlowId(claimed), { code: 'ERR_NAME_INVALID' }, String(claimed))
    t.throws(() => parseEntryName(claimed), { code: 'ERR_NAME_INVALID' }, String(claimed))
  }
  t.throws(() => parseFlowId('a/b'), { code: 'ERR_NAME_INVALID' })
  t.throws(() => parseFlowId('x'.repeat(65)), { code: 'ERR_NAME_INVALID' })
})

test('an entry starts with one of the kinds, and has a path of its own', (t) => {
  for (const kind of ENTRY_KINDS) t.is(kindOf(parseEntryName(`${kind}/a/b`)), kind)
  for (const claimed of ['business-key', 'business-key/', 'Business-key/a', 'other/a', 'business-key-2/a'])
    t.throws(() => parseEntryName(claimed), { code: 'ERR_NAME_INVALID' }, claimed)
})
