import { expectEqual, randomBytes } from '../peers/files.js'
import { openOurs, sealOurs } from '../peers/keyrise.js'
import { openTypage, sealTypage } from '../peers/typage.js'
import type { Measurement } from '../measurement.js'
import { result } from '../report.js'
import { compare, summarise } from '../statistics.js'
import { perSecond } from '../timing.js'

const SIZE_BYTES = 1024
const PLAINTEXT_COUNT = 64

/**
 * P6: small secrets. Timed, for both: a new file key and a new ephemeral key, the whole file, and opening it again. Not timed:
 * reading the recipient and the identity, which both keep.
 */
export const small: Measurement = {
  names: ['P6'],
  async measure({ runs, sliceMs }, { say }) {
    const plaintexts = Array.from({ length: PLAINTEXT_COUNT }, () => randomBytes(SIZE_BYTES))
    let turn = 0
    const next = () => plaintexts[turn++ % PLAINTEXT_COUNT] ?? randomBytes(SIZE_BYTES)
    const ours = () => openOurs(sealOurs(next()))
    const peer = async () => openTypage(await sealTypage(next()))

    for (const plaintext of plaintexts) {
      expectEqual('typage', await openTypage(await sealTypage(plaintext)), plaintext)
      expectEqual('keyrise', openOurs(sealOurs(plaintext)), plaintext)
    }
    const sides = { ours: () => perSecond(ours, sliceMs), peer: () => perSecond(peer, sliceMs) }
    await perSecond(ours, sliceMs)
    const pairs = await compare(sides, runs, (run) => say(`P6: run ${run} of ${runs}`))
    return { results: [result('P6', 'typage', summarise(pairs))] }
  },
}
