import test from 'ava'
import { encodeCbor } from '../../protocol/cbor.js'
import { decodeConfiguration, encodeConfiguration, ISOLATIONS } from '../../protocol/configuration.js'

const kmsIdentity = new Uint8Array(new ArrayBuffer(32)).fill(7)
const valid = { kmsIdentity, messageSizeBytesMax: 1 << 20, isolation: 'worker' }

test('a launch configuration survives encoding', (t) => {
  for (const isolation of ISOLATIONS) {
    const configuration = { kmsIdentity, messageSizeBytesMax: 1 << 20, isolation }
    t.deepEqual(decodeConfiguration(encodeConfiguration(configuration)), configuration)
    const standby = { ...configuration, standby: true } as const
    t.deepEqual(decodeConfiguration(encodeConfiguration(standby)), standby)
  }
})

for (const [what, claimed] of Object.entries({
  'a short identity': { ...valid, kmsIdentity: kmsIdentity.subarray(1) },
  'no identity': { messageSizeBytesMax: 1 << 20, isolation: 'worker' },
  'an unknown field': { ...valid, debug: true },
  'a limit above the maximum': { ...valid, messageSizeBytesMax: 2 ** 40 },
  'a standby that is none': { ...valid, standby: 1 },
  'an isolation that is none': { ...valid, isolation: 'none' },
  'no isolation': { kmsIdentity, messageSizeBytesMax: 1 << 20 },
})) {
  test(`${what} is refused`, (t) => {
    t.throws(() => decodeConfiguration(encodeCbor(claimed)), { code: 'ERR_CONFIG_INVALID' })
  })
}
