import * as HPKE from 'hpke'

/**
 * How records reach an enclave unseen by the host in between: the hospital's data station seals them to a key that the
 * enclave made (HPKE, RFC 9180, base mode, one shot).
 */
const suite = new HPKE.CipherSuite(HPKE.KEM_DHKEM_X25519_HKDF_SHA256, HPKE.KDF_HKDF_SHA256, HPKE.AEAD_AES_256_GCM)
const INFO = new TextEncoder().encode('federated-learning/intake')
const ENCAPSULATED_SIZE = 32

/** The key pair that a seed gives, RFC 9180 §7.1.3: only the seed, 32 bytes, has to be kept. */
const pairOf = (seed: Uint8Array) => suite.DeriveKeyPair(seed)

/** The public key of a seed. */
export const intakeKeyOf = async (seed: Uint8Array): Promise<Uint8Array> =>
  suite.SerializePublicKey((await pairOf(seed)).publicKey)

/** In the data station. */
export const sealRecords = async (publicKey: Uint8Array, records: Uint8Array): Promise<Uint8Array<ArrayBuffer>> => {
  const key = await suite.DeserializePublicKey(publicKey)
  const { encapsulatedSecret, ciphertext } = await suite.Seal(key, records, { info: INFO })
  const sealed = new Uint8Array(new ArrayBuffer(ENCAPSULATED_SIZE + ciphertext.length))
  sealed.set(encapsulatedSecret)
  sealed.set(ciphertext, ENCAPSULATED_SIZE)
  return sealed
}

/** In the enclave. Throws where they are not sealed to this key. */
export const openRecords = async (seed: Uint8Array, sealed: Uint8Array): Promise<Uint8Array> =>
  suite.Open(await pairOf(seed), sealed.subarray(0, ENCAPSULATED_SIZE), sealed.subarray(ENCAPSULATED_SIZE), {
    info: INFO,
  })
