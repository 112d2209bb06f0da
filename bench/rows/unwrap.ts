import { createSecretKey } from 'node:crypto'
import type { UnsealTask } from '../../kms/unseal.js'
import { parseHeader } from '../../protocol/age-header.js'
import type { Bytes } from '../../protocol/bytes.js'
import { sealEnvelope } from '../../protocol/crypto/envelope.js'
import { nodeRandom } from '../../protocol/crypto/primitives.js'
import { x25519Recipient } from '../../protocol/crypto/recipients.js'
import { Secret } from '../../protocol/crypto/secret.js'
import { parseFlowId } from '../../protocol/names.js'
import type { Measurement } from '../measurement.js'
import { randomBytes } from '../peers/files.js'
import { authority, publicKey } from '../peers/keyrise.js'
import { agreementSpeed } from '../peers/openssl.js'
import { withPool } from '../peers/pool.js'
import { result, type Result } from '../report.js'
import { compare, summarise } from '../statistics.js'
import { lackOf, perSecond } from '../timing.js'

/** As many as a pool of two needs to be busy to the end of the last part. */
const HEADER_COUNT = 8192
const flow = parseFlowId('bench')
const image = randomBytes(32)
const originKey = randomBytes(32)

/** What an enclave sealed to the KMS, each under keys of its own. */
const sealHeader = (index: number): Bytes => {
  const envelope = sealEnvelope(new Uint8Array(0), {
    recipients: [x25519Recipient(publicKey)],
    context: {
      flow,
      task: flow,
      kind: 'intermediate-result',
      name: `intermediate-result/${index}`,
      epoch: index,
      incarnation: 1,
      image,
    },
    originKeys: [{ authority, key: Secret.take(originKey.slice()) }],
    random: nodeRandom,
  })
  return envelope.slice(0, parseHeader(envelope).sizeBytes)
}

/**
 * P5: how many headers a KMS unwraps. Timed: what it does for each that an enclave sends: parsing, X25519, HKDF, the file key,
 * the header’s MAC, the origin tag, flow and image; the way to the pool and back too. openssl does X25519 alone.
 */
export const unwrap: Measurement = {
  names: ['P5', 'unwrap'],
  lacks: (name) => (name === 'P5' ? lackOf('openssl') : undefined),
  async measure({ runs, sliceMs, count }, { say, wants }) {
    say('P5: making headers')
    const items = Array.from({ length: count(HEADER_COUNT) }, (_, index) => sealHeader(index))
    const task: UnsealTask = { kind: 'unwrap', items, flow, image, originKey: createSecretKey(originKey) }
    const onPool = (threadCount: number, use: (unwrapsPerSecond: () => Promise<number>) => Promise<void>) =>
      withPool(threadCount, async (pool) => {
        const run = async (): Promise<void> => {
          const unsealed = await pool.unseal(task)
          if (unsealed.items.some(({ error }) => error !== null)) throw new Error('P5: a header was refused')
        }
        await perSecond(run, sliceMs)
        await use(async () => items.length * (await perSecond(run, sliceMs)))
      })

    const results: Result[] = []
    if (wants('P5'))
      await onPool(2, async (ours) => {
        const pairs = await compare({ ours, peer: agreementSpeed }, runs, (run) => say(`P5: run ${run} of ${runs}`))
        results.push(result('P5', 'openssl speed ecdhx25519, one core', summarise(pairs)))
      })
    if (!wants('unwrap')) return { results }
    const points: [number, number][] = []
    for (const threadCount of [1, 2, 3, 4])
      await onPool(threadCount, async (ours) => {
        say(`unwrap: ${threadCount} threads`)
        points.push([threadCount, await ours()])
      })
    const series = [{ name: 'keyrise', points }]
    return { results, curves: { unwrap: { what: 'header unwraps', x: 'threads in the pool', y: 'ops/s', series } } }
  },
}
