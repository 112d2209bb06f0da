import test from 'ava'
import { checkPolicy, findImage, parsePolicy } from '../../kms/policy.js'
import { digestOf } from './attested-client.js'

const HEX = '07'.repeat(32)
const write = (policy: unknown): string => JSON.stringify(policy)

test('a policy file lists platforms and images', (t) => {
  const policy = parsePolicy(write({ platforms: [HEX], images: [{ name: 'party', measurement: '01'.repeat(32) }] }))
  t.deepEqual(policy, {
    platforms: [digestOf(7)],
    images: [{ name: 'party', measurement: digestOf(1) }],
    allowDebug: false,
  })
  t.is(findImage(policy, digestOf(1)).name, 'party')
  t.throws(() => findImage(policy, digestOf(2)), { code: 'ERR_POLICY_DENIED' })
})

test('debug images get keys only where a policy says so, in so many words', (t) => {
  t.true(parsePolicy(write({ platforms: [], images: [], allowDebug: true })).allowDebug)
  t.false(parsePolicy(write({ platforms: [], images: [], allowDebug: false })).allowDebug)
  for (const allowDebug of ['true', 1, {}])
    t.throws(() => parsePolicy(write({ platforms: [], images: [], allowDebug })), {
      code: 'ERR_CONFIG_INVALID',
      message: /allowDebug/,
    })
  const meant = { platforms: [], images: [], allowDebug: 'no' as unknown as boolean }
  t.false(checkPolicy(meant).allowDebug)
})

test('what is wrong in a policy file is named', (t) => {
  const image = { name: 'party', measurement: HEX }
  const cases: readonly (readonly [text: string, named: RegExp])[] = [
    ['', /JSON/],
    ['null', /policy: an object/],
    ['[]', /policy: an object/],
    [write({ platforms: [] }), /images: a list/],
    [write({ platforms: {}, images: [] }), /platforms: a list/],
    [write({ platforms: [], images: [], image: [] }), /policy: only platforms and images/],
    [write({ platforms: [HEX, HEX.slice(1)], images: [] }), /platforms\[1\]: 64 lower-case/],
    [write({ platforms: [HEX.replace('7', 'G')], images: [] }), /platforms\[0\]/],
    [write({ platforms: [HEX, HEX], images: [] }), /platforms\[1\]: listed twice/],
    [write({ platforms: [], images: [1] }), /images\[0\]: an object/],
    [write({ platforms: [], images: [image, { ...image, svn: 1 }] }), /images\[1\]: only name and measurement/],
    [write({ platforms: [], images: [{ ...image, name: 7 }] }), /images\[0\]\.name/],
    [write({ platforms: [], images: [{ ...image, name: '../x' }] }), /images\[0\]\.name/],
    [write({ platforms: [], images: [{ ...image, name: '' }] }), /images\[0\]\.name/],
    [
      write({ platforms: [], images: [{ ...image, measurement: HEX.toUpperCase().replace('07', '0A') }] }),
      /images\[0\]\.measurement/,
    ],
    [write({ platforms: [], images: [image, { ...image, name: 'other' }] }), /images\[1\]\.measurement: listed twice/],
    [write({ platforms: Array(2000).fill(HEX), images: [] }), /platforms: a list of at most 1024/],
  ]
  for (const [text, named] of cases)
    t.throws(() => parsePolicy(text), { code: 'ERR_CONFIG_INVALID', message: named }, text.slice(0, 80))
})

test('a policy made in code is checked alike, and copied', (t) => {
  t.throws(() => checkPolicy({ platforms: [new Uint8Array(31)], images: [] }), {
    code: 'ERR_CONFIG_INVALID',
    message: /platforms\[0\]/,
  })
  t.throws(() => checkPolicy({ platforms: [], images: [{ name: 'a b', measurement: digestOf(1) }] }), {
    code: 'ERR_CONFIG_INVALID',
  })
  const measurement = digestOf(1)
  const policy = checkPolicy({ platforms: [], images: [{ name: 'party', measurement }] })
  measurement.fill(2)
  t.notThrows(() => findImage(policy, digestOf(1)))
})
