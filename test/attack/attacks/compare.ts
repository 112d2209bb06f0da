import crypto, { randomFillSync } from 'node:crypto'
import { syncBuiltinESMExports } from 'node:module'
import { nodeRandom } from '../../../protocol/crypto/primitives.js'
import { Secret } from '../../../protocol/crypto/secret.js'
import { CONTEXT } from '../../crypto/fixtures.js'
import { contextStanza, verifyOrigin } from '../../../protocol/crypto/origin.js'
import { openEnvelope, sealEnvelope } from '../../../protocol/crypto/envelope.js'
import { scryptIdentity, scryptRecipient } from '../../../protocol/crypto/recipients.js'
import { parseHeader, type Header } from '../../../protocol/age-header.js'
import { leaks, stops, type Attack } from '../attack.js'

/** Comparisons of secrets, by a fault that is planted in the one that takes constant time: a clock would tell nothing. */

const naiveEqual = (a: Uint8Array, b: Uint8Array): boolean => a.every((byte, index) => byte === b[index])

const constantTime: Attack = {
  name: 'constant-time-compare',
  attacker: 'H1',
  tries:
    'comparisons of secrets that end at the first difference: with `timingSafeEqual` made to agree always, wrong tags and wrong keys must pass',
  expected: { bare: 'leaks', worker: 'stops', process: { notApplicable: 'the same code as in a worker' } },
  async run(stage) {
    const passphrase = Secret.take(new TextEncoder().encode('correct horse'))
    const sealed = sealEnvelope(new Uint8Array(64), {
      recipients: [scryptRecipient(passphrase, 4)],
      random: nodeRandom,
    })
    const origin = { authority: randomFillSync(new Uint8Array(32)), key: Secret.random(32, nodeRandom) }
    const fileKey = Secret.random(16, nodeRandom)
    const header = { stanzas: [contextStanza(CONTEXT, fileKey, [origin])] } as unknown as Header
    const isOthers = (): boolean => {
      try {
        verifyOrigin(header, fileKey, { ...origin, key: Secret.random(32, nodeRandom) })
        return true
      } catch {
        return false
      }
    }
    const { sizeBytes } = parseHeader(sealed)
    // The header's authentication tag is the end of its last line.
    const forged = sealed.map((byte, index) => (index === sizeBytes - 10 ? (byte === 65 ? 66 : 65) : byte))
    const opens = (envelope: Uint8Array): boolean => {
      try {
        openEnvelope(envelope, { identities: [scryptIdentity(passphrase)] })
        return true
      } catch {
        return false
      }
    }
    if (!opens(sealed) || opens(forged) || isOthers()) throw new Error('Without the fault a forged header opens')
    const open = crypto as { timingSafeEqual: unknown }
    open.timingSafeEqual = () => true
    syncBuiltinESMExports()
    const one = randomFillSync(new Uint8Array(32))
    if (stage.level === 'bare')
      return naiveEqual(one, new Uint8Array(32)) ? stops('constant time') : leaks('another comparison decides')
    const isEqual = Secret.take(one).equals(Secret.take(randomFillSync(new Uint8Array(32))))
    const others = [isEqual, opens(forged), isOthers()]
    return others.every(Boolean) ? stops('the fault decides each') : leaks('another comparison decides')
  },
}

export const COMPARE_ATTACKS: readonly Attack[] = [constantTime]
