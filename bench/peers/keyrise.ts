import { x25519PublicKey, x25519PrivateKeyObject } from '../../protocol/crypto/curves.js'
import { openEnvelope, sealEnvelope } from '../../protocol/crypto/envelope.js'
import { nodeRandom } from '../../protocol/crypto/primitives.js'
import { encodeX25519Identity, x25519Identity, x25519Recipient } from '../../protocol/crypto/recipients.js'
import { Secret } from '../../protocol/crypto/secret.js'
import type { UnsealKeys } from '../../kms/unseal.js'
import type { Bytes } from '../../protocol/bytes.js'
import { randomBytes, type Peer } from './files.js'

/** The key that age files are sealed to, ours and typage’s and the `age` command’s. */
export const privateKey = Secret.random(32, nodeRandom)
export const publicKey = x25519PublicKey(privateKey)

/** For the command lines: `AGE-SECRET-KEY-1…`. */
export const identityText = (): Bytes => encodeX25519Identity(privateKey)

export const identities = [x25519Identity(x25519PrivateKeyObject(privateKey))]
/** What a KMS whose one root key this is starts its pool with. */
export const unsealKeys = (): UnsealKeys => ({
  authority,
  rootKeys: [{ key: 'root@1', suite: 'x25519', privateKey: x25519PrivateKeyObject(privateKey) }],
})
export const authority = randomBytes(32)

const recipients = [x25519Recipient(publicKey)]

export const sealOurs = (plaintext: Uint8Array): Bytes => sealEnvelope(plaintext, { recipients, random: nodeRandom })
export const openOurs = (envelope: Uint8Array): Bytes => openEnvelope(envelope, { identities }).plaintext

/** Ours on the calling thread, without a pool: what an enclave does by itself. */
export const keyrise: Peer = {
  name: 'keyrise, 1 thread',
  seal: (plaintext) => {
    const envelope = sealOurs(plaintext)
    return Promise.resolve({ open: () => openOurs(envelope) })
  },
}
