import test from 'ava'
import { allocate, copyBytes } from '../../protocol/bytes.js'
import { envelopeDigest, openEnvelope } from '../../protocol/crypto/envelope.js'
import { scryptIdentity, subKeyIdentity, x25519Identity } from '../../protocol/crypto/recipients.js'
import { CONTEXT, fromText, secretOf } from './fixtures.js'

/** Envelopes that version 0.1.0 sealed, with the keys below. Every later version opens them, or it orphans what users hold. */

const TO_KEYS = [
  'YWdlLWVuY3J5cHRpb24ub3JnL3YxCi0+IFgyNTUxOSA3SkVRVWlaU2VUbnJGVkp1bEdVa09RMHZoWkYvclJ1V0orZGFwcDFsZ0JN',
  'CnhEaFR3bmszM21jQU9xOWpIaThxblpSamxUb2JhVTJPaXRTaGFuYU1VU00KLT4ga2V5cmlzZS9zdWIta2V5IGVwb2NoLzcgc3Br',
  'SVpmZkVSdU44MVk5VW9tMmtsdwpuUk5IUFhNaE5WL3pUWElqbXM5SGJDcnFVSnhUa1hRVG9RekorT0hCbUR3Ci0+IGtleXJpc2Uv',
  'Y29udGV4dCBiSUR4Wm1pYm5MczNhRzNmbncwQjlnIG9DczVsTzN6N2g0QUpOcnR4Q01SU1RETmI1WjhjbFB5b3lmWWQ3UXVWVEkK',
  'cUdGMkFXUm1iRzkzYTJOeVpXUnBkQzB5TURJMlpHdHBibVJ6YVc1MFpYSnRaV1JwWVhSbExYSmxjM1ZzZEdSdQpZVzFsZUJ0cGJu',
  'UmxjbTFsWkdsaGRHVXRjbVZ6ZFd4MEwzSnZkVzVrTFROa2RHRnphMlpqY21Wa2FYUmxaWEJ2ClkyZ0haV2x0WVdkbFdDQ2xwYVds',
  'cGFXbHBhV2xwYVdscGFXbHBhV2xwYVdscGFXbHBhV2xwYVdscFd0cGJtTmgKY201aGRHbHZiZ0kKLS0tIHEvZFpvOEVDMFl4Tlhp',
  'dzlEWXlXWW5nSVlDaUNKbTVvWWtTdDAxS3dOWUEK650mRTs5K1xianZVOia790QpqrI6O4JoBMeFUuiFbWp4iQ5vJxVBdDuuLbZe',
  'OdrveaoG',
].join('')

const TO_PASSPHRASE = [
  'YWdlLWVuY3J5cHRpb24ub3JnL3YxCi0+IHNjcnlwdCBZek1LNW11V2pUdEtISkwxK3JRbWV3IDEwCk8zNU9PYW9yVlZTdXkxVlZv',
  'bEhPTm1VU3V1YndMeFVmN1Z0aXRWVXlRWkEKLS0tIE0wVmNtVXBld0pzVUgvTWp2OGxCNmpiVmlteUtiY1YreDc5aFF2Q0NOR2MK',
  '9p72lRV9whP6QY78iOMUMy01LNG7yaiFfV/Ae5MdU3TMrvehnJbrXf3pJQ6JavtVs1XW',
].join('')

const DIGEST = '65de9896f20e87278ba0ce4ee1c63550d9f0428d1fdd2896698e7fa9be7d00c9'

const bytesOf = (base64: string) => copyBytes(Buffer.from(base64, 'base64'))
const keyOf = (byte: number) => secretOf(allocate(32).fill(byte))
const plaintext = fromText('gradient of round 3')
const origin = { authority: allocate(32).fill(0x45), key: keyOf(0x44) }

for (const [recipient, identity] of [
  ['an X25519 key', x25519Identity(keyOf(0x42))],
  ['a sub key', subKeyIdentity('epoch/7', keyOf(0x43))],
] as const) {
  test(`the envelope of 0.1.0 opens with ${recipient}, its context vouched for`, (t) => {
    const opened = openEnvelope(bytesOf(TO_KEYS), { identities: [identity], expect: CONTEXT, origin })
    t.deepEqual(opened, { plaintext, context: CONTEXT })
  })
}

test('its digest is the one that epochs and ledgers list', (t) => {
  t.deepEqual(envelopeDigest(bytesOf(TO_KEYS)), copyBytes(Buffer.from(DIGEST, 'hex')))
})

test('the passphrase file of 0.1.0 opens', (t) => {
  const identity = scryptIdentity(secretOf(fromText('correct horse battery staple')))
  t.deepEqual(openEnvelope(bytesOf(TO_PASSPHRASE), { identities: [identity] }).plaintext, plaintext)
})
