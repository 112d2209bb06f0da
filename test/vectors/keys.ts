import { createPrivateKey, type KeyObject } from 'node:crypto'
import { SeededRandom } from '../../faults/seeded-random.js'
import { allocate, type Bytes } from '../../protocol/bytes.js'
import { x25519PublicKey } from '../../protocol/crypto/curves.js'
import { hybridIdentity, hybridPublicKey } from '../../protocol/crypto/hybrid.js'
import { scryptIdentity, subKeyIdentity, x25519Identity, type Identity } from '../../protocol/crypto/recipients.js'
import { Secret } from '../../protocol/crypto/secret.js'
import { sshRsaIdentity } from '../../protocol/crypto/ssh-rsa.js'

/** The keys of our vectors. They protect nothing: everyone knows them. */

const keyOf = (name: string, size = 32): Bytes => new SeededRandom(`keyrise/vectors/${name}`).fill(allocate(size))
export const secretOf = (bytes: Uint8Array): Secret => Secret.take(Uint8Array.from(bytes))

export const KEYS = {
  'x25519-a': keyOf('x25519-a'),
  'x25519-b': keyOf('x25519-b'),
  hybrid: keyOf('hybrid'),
  'sub-key': keyOf('sub-key'),
  'business-root': keyOf('business-root'),
  'origin-secret': keyOf('origin-secret'),
  'origin-key': keyOf('origin-key'),
  authority: keyOf('authority'),
} as const
export const SUB_KEY_STEP = 'epoch/7'
export const PASSPHRASE = 'correct horse battery staple'

/** PKCS #8, 3072 bits: RSA keys cannot be drawn from a seed here. */
export const RSA_PKCS8 = [
  'MIIG/gIBADANBgkqhkiG9w0BAQEFAASCBugwggbkAgEAAoIBgQDFAfWbHlZ9ODYUc8gAaYye7yJwXWfVsOqmJ/bhxcHOoAw31Zn/nXEB16IyqCkJOQUe',
  'Tyfp5qRdtB/pZkXtbvjvY83iVQb8hQmj49UxsqOXUexBngBNUFCwe3GIIJ0Xz44kbPqgHYL7vEzCSkcvcsHjvKb/d0pwjAxPgSy98vQLJp6zoDuUUCys',
  '7M4YS6tWwoRc3ith+YBA0bniYzaTTfIEjRKA4QzAXQ4oHWWHat9FLIuEOaKg1Hd7eIi15z27DQtQvdTDSUplw9rt0YvNRMmxAaTd8IeABeZ1oqXzHBJJ',
  'hfLfCmDx2ZxPdLwPMY9kqGBMvVqK5r9gnI9O4rY11qts2+cj86C0RDf40MMlqyy/7gjP1PxJRkAjSdCHE88NSOFavFFNm0WtmRDiJemZ5Yxul05gbo0V',
  'I5ZAuVuo+UPqpyApMXXnpVzs3pzFxXr+nkHiXBgBsUSxIrwU+QgNaNvY3YW4+j0cAFFIRr5X7r7CDxvE8f1/AmzNkprR5v2Hwn8CAwEAAQKCAYA281z2',
  'b3fgZZVwDvtyYf5/NmR8wxD7YeWRgwQx5V8xqyK9UC8sRVYIFYWAa7dGg0kSMzIG4/ZkzKE6EPTgTVvSKhx7TQwt003lEN+ehR1sT8V+Z/vdlNFs6IG6',
  'Xp5yzcnwDxW5I4IthVBDwUQpz/CU/UH3b+arjeTBKF66fNHlalhJ8h+sNtC/Sy4RSMn54TfaT336TgWgDt+ybcoDPHKNImxO1ncgENSqC8kOBJlSSiKA',
  'NzNNePX60pwPYPiu++v2TnRr92fPuWOFp+ZEglxsxsS8dgojGtXQy3emvaHJstOYm06QJtsR+Lhjra2OMEfbvi+85hSB4pzriVRxIieUgiHn54U+HJxh',
  'tcBApUAeUqU5xbATJ0iL6hF3OZNI/P2nBA2H5xOjnxWE8MbvA2jg5QbC8/Up3ufsr6jSYnSM6Fk+rP6FwBhyKUdAI0es77ptzup6TWs0O9NicEQ9Ww4S',
  'dIX+Rws6u9C3bMFzz3XUhbxs3CgxkRDzRD3QLmGLTUECgcEA9R2BN8nmkNiSIT6aS8k3ukcxYX76/RVsxYnDTa6SW1jOEUowEwidbfBy10Z0Y7iWl/ch',
  'Fx9vKkcJCDWrCiUcvjeQe9340zgMi21Omobq5kqY7OziH0xiuWXy0WdwzVU+24eS4c1dVJhW2AkHDD8cGBbqsXtDgiB4HFyQ91tqm82WsSSqA3cvlgZb',
  '1UOgEUNEdHoUmKoX4AnZpv5L35g7xAQjBvNxYONEaaOCiTUZNk19ndF7topBOUl8QKvQzFbFAoHBAM3BkAKJiEFaJ1BkK3pqam1w0quu9rRjomr0IbDk',
  'spRfJjZLdkidFAtAsiI17Xaajn7NAoMLvz1K5d4r+sdxIJIMjaMilGsMeIfpMpPNpLoeLX/wXe7xTGVCkoQceuUWYngDDHRBJFxTZIAcC+WtRkO1f7FD',
  '1sTPjnZ9bcnFMCThSxRAXy3OhkNwQ/HQ9FsoeJcXyT89jAX9xwFdyuOLrQAWGitm5pgsA7/dCAoXSPMAriMylfs0ITYaf2pohlYocwKBwAig4EKZfd9N',
  'cF9xN7dBPw/0n51h/e3Yyjpt7g0W/xnuF1rudKDG5dvP4gsH9OLpxYtV7LlGpwAi/gNm+D1kLw3XIOPrXW36BB8IWwL/itdOevGkKRWW98a0+wY6EPN5',
  'c7wAmsAOHaHztuLl9nSM6C1E6UAUKb0z7WZ6L7Q1aJxRcWOM+dsjX+51DNiGB+Vzq7456e2x1yNQ1XOWcg9N6ZSt3JnLCguyFF9vnRG9Z8TMl4ZtsGAt',
  'n7wnhRM1uSToTQKBwQCkK3Q/QgNQuaEyuKokQ7JlXicJy1GW/wSBuAcFwIRodD7mBXH8YDC1BcrcFxFAl/NoYyVE8GOHgTJGAetXpQDq508/wgCQJWQq',
  'dTvgyK1Nv3RoZ55bX3aoOOT0ulCoZyLsROpz++IKNJO00CwB9y5gKfoXs1wyrrUp/8xQuKBAXO5t2yrWPrnMJ1BfKm0+Kt2FGPp/FhmaUjGt+ms/AZxo',
  'vDnnNXR6KGxZcv/OJWQUWA+Zj+wxgheZtqzBd2LwbdcCgcEAku8MktjMbk6k84q366JWMUPnwnDhtIXpU5DoBEmZcBrS9MaVfCkPhYOVQckDp2YqEUqq',
  'rOhmW18aXfYETJ1qMKmujw5h5TAVGflJWlN7YR2YTOh3aubDOPQyl7nEzOCEoc/Rpbz3lolfjrXNa+ZyLEFr74/YLZ36R53LRLQU2yO/QZa9Flskbk5w',
  'iS7qHbMtEH33SIgwfgDWqZ3ZIp4KT1XGth8YAlt5qJ9dicUML7rHl2b73ALw/XT1+AWVxdjL',
].join('')
export const rsaKey: KeyObject = createPrivateKey({
  key: Buffer.from(RSA_PKCS8, 'base64'),
  format: 'der',
  type: 'pkcs8',
})

export const publicKeys = {
  a: x25519PublicKey(secretOf(KEYS['x25519-a'])),
  b: x25519PublicKey(secretOf(KEYS['x25519-b'])),
  hybrid: hybridPublicKey(secretOf(KEYS.hybrid)),
}

const IDENTITIES = {
  'x25519-a': () => x25519Identity(secretOf(KEYS['x25519-a'])),
  'x25519-b': () => x25519Identity(secretOf(KEYS['x25519-b'])),
  hybrid: () => hybridIdentity(secretOf(KEYS.hybrid)),
  'ssh-rsa': () => sshRsaIdentity(rsaKey),
  'sub-key': () => subKeyIdentity(SUB_KEY_STEP, secretOf(KEYS['sub-key'])),
  passphrase: () => scryptIdentity(secretOf(Buffer.from(PASSPHRASE)), 12),
}
export type IdentityName = keyof typeof IDENTITIES

export const identityOf = (name: IdentityName): Identity => IDENTITIES[name]()
