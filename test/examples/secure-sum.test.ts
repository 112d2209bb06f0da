import test from 'ava'
import { randomBytes } from 'node:crypto'
import { loadScheme } from '../../examples/federated-learning/homomorphic.js'
import { expandMask, maskValues } from '../../examples/federated-learning/mask.js'

const FLOWS = ['a', 'b', 'c'] as const
const seeds = new Map(['ab', 'ac', 'bc'].map((pair) => [pair, randomBytes(32)]))
const seedOf = (one: string, other: string): Buffer => seeds.get([one, other].sort().join('')) ?? randomBytes(32)
const VALUES = [
  Int32Array.of(1, -2, 2 ** 27 - 1, 0),
  Int32Array.of(10, -20, 2 ** 27 - 1, 0),
  Int32Array.of(100, -200, 2 ** 27 - 1, -1),
]
const SUM = [111, -222, 3 * (2 ** 27 - 1), -1]

const masked = (among: readonly string[], label: string, modulus: number): Uint32Array[] =>
  among.map((flow) =>
    maskValues(VALUES[FLOWS.indexOf(flow as 'a')] ?? Int32Array.of(), {
      flow,
      peers: among.filter((peer) => peer !== flow).map((peer) => ({ flow: peer, seed: seedOf(flow, peer) })),
      label,
      modulus,
    }),
  )

test('encrypted and masked values add up exactly, negative ones too', async (t) => {
  const scheme = await loadScheme()
  const { publicKey, secretKey } = scheme.createKeys()
  const ciphertexts = masked(FLOWS, 'round-1', scheme.modulus).map((values) => scheme.encrypt(publicKey, values))
  const sum = scheme.add(ciphertexts)
  t.deepEqual([...scheme.decrypt(secretKey, sum, 4)], SUM)
  t.deepEqual(scheme.add(ciphertexts), sum, 'adding again gives the same bytes')
})

test('a ciphertext alone, or of too few, shows no value even to the holder of the secret key', async (t) => {
  const scheme = await loadScheme()
  const { publicKey, secretKey } = scheme.createKeys()
  const ciphertexts = masked(FLOWS, 'round-2', scheme.modulus).map((values) => scheme.encrypt(publicKey, values))
  for (const few of [ciphertexts.slice(0, 1), ciphertexts.slice(0, 2)]) {
    const seen = scheme.decrypt(secretKey, scheme.add(few), 4)
    t.true(
      seen.some((value) => Math.abs(value) > 1000),
      'four masks that all stay small have a chance of 10⁻²³',
    )
  }
})

test('equal values encrypt to different ciphertexts', async (t) => {
  const scheme = await loadScheme()
  const { publicKey } = scheme.createKeys()
  t.notDeepEqual(scheme.encrypt(publicKey, Uint32Array.of(1)), scheme.encrypt(publicKey, Uint32Array.of(1)))
})

test('masks differ by round and by participants, and use the whole range', (t) => {
  const seed = randomBytes(32)
  const modulus = 1_073_692_673
  const mask = expandMask(seed, 'round-1', 4096, modulus)
  t.deepEqual(expandMask(seed, 'round-1', 4096, modulus), mask)
  t.notDeepEqual(expandMask(seed, 'round-2', 4096, modulus), mask)
  t.true(mask.every((value) => value < modulus))
  const mean = mask.reduce((sum, value) => sum + value, 0) / mask.length
  t.true(Math.abs(mean / modulus - 0.5) < 0.05, 'ten standard deviations')
})
