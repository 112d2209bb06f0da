import { readFileSync } from 'node:fs'
import test from 'ava'
import { armorReader, decodeArmor } from '../../protocol/age-armor.js'
import { toHex } from '../../protocol/bytes.js'
import { envelopeOpener } from '../../protocol/crypto/envelope-stream.js'
import { envelopeDigest } from '../../protocol/crypto/envelope.js'
import { openLayers } from '../../protocol/crypto/layers.js'
import { sha256 } from '../../protocol/crypto/primitives.js'
import { ERROR_CODES, outsideCode } from '../../protocol/errors.js'
import { makeVectors, VECTORS_FILE, type VectorsDocument } from '../vectors/envelopes.js'
import { VECTOR_CONTEXT, VECTOR_ORIGIN, type Vector } from '../vectors/makers.js'
import { identityOf, secretOf } from '../vectors/keys.js'
import { codeOf, collect, pushAll } from './fixtures.js'

const document = JSON.parse(readFileSync(VECTORS_FILE, 'utf8')) as VectorsDocument

test('the vectors are those that the script makes', async (t) => {
  t.deepEqual(document, JSON.parse(JSON.stringify(await makeVectors())), 'run `npm run vectors`')
})

const optionsOf = ({ identities, origin, epoch }: Vector) => ({
  identities: identities.map(identityOf),
  ...(origin === true ? { origin: { authority: VECTOR_ORIGIN.authority, key: secretOf(VECTOR_ORIGIN.key) } } : {}),
  ...(epoch === undefined ? {} : { expect: { ...VECTOR_CONTEXT, epoch } }),
})

for (const vector of document.vectors) {
  const file = Buffer.from(vector.file, 'base64')

  test(`${vector.name}: ${vector.code ?? 'opens'}`, (t) => {
    const open = (): void => {
      const envelope = vector.armored === true ? decodeArmor(file) : file
      const { plaintext } = openLayers(envelope, optionsOf(vector))
      t.is(toHex(sha256(plaintext)), vector.plaintext ?? '')
      t.is(toHex(envelopeDigest(envelope)), vector.digest ?? '')
    }
    t.is(codeOf(open) ?? null, vector.code)
  })

  // A stream opens one layer.
  if (!vector.name.includes('layer')) {
    test(`${vector.name}: ${vector.code ?? 'opens'}, streamed`, (t) => {
      const { sink, taken, isEnded } = collect()
      const opener = envelopeOpener(optionsOf(vector), sink)
      const code = codeOf(() => {
        pushAll(vector.armored === true ? armorReader(opener) : opener, file, () => 100)
      })
      t.is(code ?? null, vector.code)
      t.is(isEnded(), vector.code === null)
      if (vector.code === null) t.is(toHex(sha256(taken())), vector.plaintext ?? '')
    })
  }
}

test('each reason for which an envelope is refused has a vector', (t) => {
  const codes = new Set(document.vectors.map(({ code }) => code))
  // A context’s CBOR is part of the header, so its code never leaves the reader.
  const reasons = ERROR_CODES.filter((code) => outsideCode(code) === 'ERR_ENVELOPE_INVALID')
  t.deepEqual(
    reasons.filter((code) => !codes.has(code) && code !== 'ERR_ENVELOPE_INVALID' && code !== 'ERR_CBOR_INVALID'),
    [],
  )
})
