import { buildDecrypt } from '@aws-crypto/decrypt-node'
import { buildEncrypt } from '@aws-crypto/encrypt-node'
import { AlgorithmSuiteIdentifier, CommitmentPolicy } from '@aws-crypto/material-management-node'
import { RawAesKeyringNode, RawAesWrappingSuiteIdentifier } from '@aws-crypto/raw-aes-keyring-node'
import { randomBytes, type Peer } from './files.js'

/**
 * AWS Encryption SDK for JavaScript, as fast as it goes and still says who may open what: a raw AES-256 keyring (a tenth of the
 * cost of RSA for small files), frames of 64 KiB as our chunks are, key commitment as is its default, no ECDSA signature over
 * the whole, which we have no counterpart to.
 */
const policy = { commitmentPolicy: CommitmentPolicy.REQUIRE_ENCRYPT_REQUIRE_DECRYPT, maxEncryptedDataKeys: 1 }
const { encrypt } = buildEncrypt(policy)
const { decrypt } = buildDecrypt(policy)
const FRAME_SIZE_BYTES = 64 * 1024

const keyring = new RawAesKeyringNode({
  keyName: 'bench',
  keyNamespace: 'bench',
  unencryptedMasterKey: randomBytes(32),
  wrappingSuite: RawAesWrappingSuiteIdentifier.AES256_GCM_IV12_TAG16_NO_PADDING,
})

export const esdk: Peer = {
  name: 'AWS Encryption SDK',
  seal: async (plaintext) => {
    const suiteId = AlgorithmSuiteIdentifier.ALG_AES256_GCM_IV12_TAG16_HKDF_SHA512_COMMIT_KEY
    const { result: message } = await encrypt(keyring, plaintext, { suiteId, frameLength: FRAME_SIZE_BYTES })
    return { open: async () => (await decrypt(keyring, message)).plaintext }
  },
}
