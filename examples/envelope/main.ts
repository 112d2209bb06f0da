import {
  describeEnvelope,
  describePayload,
  isKeyriseError,
  nodeRandom,
  openEnvelope,
  resealEnvelope,
  sealEnvelope,
  Secret,
  x25519Identity,
  x25519PublicKey,
  x25519Recipient,
} from 'keyrise/envelope'

const random = nodeRandom
using key = Secret.random(32, random)
using nextKey = Secret.random(32, random)
const recipients = [x25519Recipient(x25519PublicKey(key))] // age1…
const identities = [x25519Identity(key)] // AGE-SECRET-KEY-1…

const file = sealEnvelope(new TextEncoder().encode('hello'), { recipients, random })
console.log('opened:', new TextDecoder().decode(openEnvelope(file, { identities }).plaintext))

const { recipients: described, headerSizeBytes } = describeEnvelope(file) // needs no key
console.log('for:', described.map(({ opens }) => opens).join(', '))
console.log('plaintext:', describePayload(file.length - headerSizeBytes).plaintextSizeBytes, 'bytes')

// The first key was stolen: another file key, for another recipient.
const next = resealEnvelope(file, { identities, recipients: [x25519Recipient(x25519PublicKey(nextKey))], random })
try {
  openEnvelope(next, { identities })
} catch (error) {
  console.log('with the old key:', isKeyriseError(error) ? error.code : error)
}
console.log(
  'with the new key:',
  openEnvelope(next, { identities: [x25519Identity(nextKey)] }).plaintext.length,
  'bytes',
)
