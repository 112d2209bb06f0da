import test from 'ava'
import { FlowKeys, type FlowIdentity } from '../../enclave/flow-keys.js'
import { allocate } from '../../protocol/bytes.js'
import { parseHeader } from '../../protocol/age-header.js'
import { x25519PublicKey } from '../../protocol/crypto/curves.js'
import { unwrapHeader } from '../../protocol/crypto/envelope.js'
import { nodeRandom } from '../../protocol/crypto/primitives.js'
import { x25519Identity } from '../../protocol/crypto/recipients.js'
import { Secret } from '../../protocol/crypto/secret.js'
import { parseFlowId } from '../../protocol/names.js'
import { IMAGE, OTHER_IMAGE } from '../kms/in-process.js'
import { text } from './flow-world.js'

const root = Secret.random(32, nodeRandom)
const originKey = Secret.random(32, nodeRandom)
const identity: FlowIdentity = { flow: parseFlowId('flow-1'), task: parseFlowId('task-1'), image: IMAGE }
const place = { kind: 'epoch', epoch: 2, incarnation: 3, serial: 1 } as const

/** Keys that differ from the right ones in what `changes` says. */
const keysWith = (changes: {
  identity?: Partial<FlowIdentity>
  root?: Secret
  key?: Secret
  authority?: string
  birth?: number
}) =>
  new FlowKeys({
    identity: { ...identity, ...changes.identity },
    root: (changes.root ?? root).clone(),
    rootObject: { kind: 'root', epoch: 1, incarnation: changes.birth ?? 1, serial: 0 },
    origin: { authority: text((changes.authority ?? 'the KMS').padEnd(32)), key: (changes.key ?? originKey).clone() },
    random: nodeRandom,
  })

test('an epoch file, or a step’s envelope, opens under exactly its own root, flow, task, image, birth and origin', (t) => {
  const keys = keysWith({})
  const epoch = keys.sealEpoch(text('index'), place)
  const step = keys.sealStep('inputs', text('rows'), 3)
  t.deepEqual(keys.openEpoch(epoch).plaintext, text('index'))
  t.like(keys.openEpoch(epoch).context, { epoch: 2, incarnation: 3, name: 'root-0000000001' })
  t.deepEqual(keysWith({}).openStep('inputs', step), text('rows'))
  for (const [name, changed, code] of [
    ['root', keysWith({ root: Secret.random(32, nodeRandom) }), 'ERR_IDENTITY_MISMATCH'],
    ['flow', keysWith({ identity: { flow: parseFlowId('flow-2') } }), 'ERR_CONTEXT_MISMATCH'],
    ['task', keysWith({ identity: { task: parseFlowId('task-2') } }), 'ERR_CONTEXT_MISMATCH'],
    ['image', keysWith({ identity: { image: OTHER_IMAGE } }), 'ERR_CONTEXT_MISMATCH'],
    ['origin key', keysWith({ key: Secret.random(32, nodeRandom) }), 'ERR_ORIGIN_INVALID'],
    ['authority', keysWith({ authority: 'another KMS' }), 'ERR_ORIGIN_INVALID'],
  ] as const) {
    t.throws(() => changed.openEpoch(epoch), { code }, name)
    t.throws(() => changed.openStep('inputs', step), { code }, name)
  }
  t.throws(() => keysWith({ birth: 2 }).openEpoch(epoch), { code: 'ERR_CONTEXT_MISMATCH' })
})

test('a header made ahead is used once, and for its own place only', (t) => {
  const keys = keysWith({})
  const headerOf = (envelope: Uint8Array) => envelope.slice(0, parseHeader(envelope).sizeBytes)
  keys.prepareEpoch(place)
  const [first, second] = [keys.sealEpoch(text('one'), place), keys.sealEpoch(text('two'), place)]
  t.notDeepEqual(headerOf(first), headerOf(second))
  t.deepEqual(keys.openEpoch(first).plaintext, text('one'))
  t.deepEqual(keys.openEpoch(second).plaintext, text('two'))
  for (const other of [
    { ...place, epoch: 3 },
    { ...place, incarnation: 4 },
  ]) {
    keys.prepareEpoch(place)
    const envelope = keys.sealEpoch(text('three'), other)
    t.like(keys.openEpoch(envelope).context, { epoch: other.epoch, incarnation: other.incarnation })
  }
  keys[Symbol.dispose]()
  t.throws(() => keys.sealEpoch(text('four'), place))
})

test('what was sealed straight to the KMS opens in its own place only, and only where this flow sealed it', (t) => {
  using secretKey = Secret.random(32, nodeRandom)
  const keys = keysWith({})
  const at = { ...place, kind: 'direct' } as const
  const envelope = keys.sealDirect('password/a', text('value'), at, {
    suite: 'x25519',
    encryptionKey: x25519PublicKey(secretKey),
  })
  using fileKey = unwrapHeader(parseHeader(envelope), [x25519Identity(secretKey)])
  t.deepEqual(keys.openDirect('password/a', envelope, at, fileKey), text('value'))
  using otherKey = Secret.random(16, nodeRandom)
  for (const [what, refused, code] of [
    ['name', () => keys.openDirect('password/b', envelope, at, fileKey), 'ERR_CONTEXT_MISMATCH'],
    ['epoch', () => keys.openDirect('password/a', envelope, { ...at, epoch: 3 }, fileKey), 'ERR_CONTEXT_MISMATCH'],
    [
      'incarnation',
      () => keys.openDirect('password/a', envelope, { ...at, incarnation: 4 }, fileKey),
      'ERR_CONTEXT_MISMATCH',
    ],
    [
      'image',
      () => keysWith({ identity: { image: OTHER_IMAGE } }).openDirect('password/a', envelope, at, fileKey),
      'ERR_CONTEXT_MISMATCH',
    ],
    [
      'origin key',
      () => keysWith({ key: Secret.random(32, nodeRandom) }).openDirect('password/a', envelope, at, fileKey),
      'ERR_ORIGIN_INVALID',
    ],
    ['file key', () => keys.openDirect('password/a', envelope, at, otherKey), 'ERR_HEADER_MAC'],
  ] as const)
    t.throws(refused, { code }, what)
})

test('after disposal no key is left to use', (t) => {
  const keys = keysWith({})
  const epoch = keys.sealEpoch(text('index'), place)
  keys[Symbol.dispose]()
  for (const use of [
    () => keys.sign(text('m')),
    () => keys.agree(keys.agreementKey, 'step'),
    () => keys.sealStep('inputs', text('rows'), 3),
    () => keys.openEpoch(epoch),
    () => keys.sealRoot({ suite: 'x25519', encryptionKey: allocate(32) }, 1),
  ])
    t.throws(use)
})
