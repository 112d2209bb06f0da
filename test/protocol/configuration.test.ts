import test from 'ava'
import { encodeCbor } from '../../protocol/cbor.js'
import { decodeConfiguration, encodeConfiguration } from '../../protocol/configuration.js'

const kmsIdentity = new Uint8Array(new ArrayBuffer(32)).fill(7)

test('a launch configuration survives encoding', (t) => {
  const configuration = { kmsIdentity, messageSizeBytesMax: 1 << 20 }
  t.deepEqual(decodeConfiguration(encodeConfiguration(configuration)), configuration)
})

for (const [what, claimed] of Object.entries({
  'a short identity': { kmsIdentity: kmsIdentity.subarray(1), messageSizeBytesMax: 1 << 20 },
  'no identity': { messageSizeBytesMax: 1 << 20 },
  'an unknown field': { kmsIdentity, messageSizeBytesMax: 1 << 20, debug: true },
  'a limit above the maximum': { kmsIdentity, messageSizeBytesMax: 2 ** 40 },
})) {
  test(`${what} is refused`, (t) => {
    t.throws(() => decodeConfiguration(encodeCbor(claimed)), { code: 'ERR_CONFIG_INVALID' })
  })
}
