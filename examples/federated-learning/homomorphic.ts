import sealModule from 'node-seal/allows_wasm_node_umd.js'

/**
 * BFV in Microsoft SEAL: whole numbers that add up while encrypted, exactly. 4096 slots, 128 bits of security by the
 * homomorphic encryption standard's table, 30 bits of plaintext modulus. SEAL trusts the bytes that it loads: check who
 * signed them first. Its objects live in WASM memory until `delete`, so each function frees what it made.
 */
const SLOT_COUNT = 4096
const MODULUS_BITS = 30

// The package exports the function itself; its types, written for bundlers, say that it is `default` of what it exports.
const loadSeal = sealModule as unknown as typeof sealModule.default

type Seal = Awaited<ReturnType<typeof loadSeal>>
interface Freeable {
  delete(): void
}

/** Lends WASM objects to `use` and frees every one of them, whatever happens. */
const scoped = <T>(use: (own: <F extends Freeable>(object: F) => F) => T): T => {
  const owned: Freeable[] = []
  try {
    return use((object) => {
      owned.push(object)
      return object
    })
  } finally {
    for (const object of owned.reverse()) object.delete()
  }
}

/** SEAL's optional-argument functions return nothing only where a destination was given. */
const made = <T>(result: T): Exclude<T, void> => {
  if (result === undefined) throw new TypeError('SEAL made nothing')
  return result as Exclude<T, void>
}

const copyOut = (bytes: Uint8Array): Uint8Array<ArrayBuffer> => {
  const copy = new Uint8Array(new ArrayBuffer(bytes.length))
  copy.set(bytes)
  return copy
}

const createScheme = (seal: Seal) => {
  // The library types its constants as `any`.
  const bfv = seal.SchemeType.bfv as Seal['SchemeType']
  const bits128 = seal.SecurityLevel.tc128 as Seal['SecurityLevel']
  const modulusObject = seal.PlainModulus.Batching(SLOT_COUNT, MODULUS_BITS)
  const modulus = Number(modulusObject.value)
  const parameters = seal.EncryptionParameters(bfv)
  parameters.setPolyModulusDegree(SLOT_COUNT)
  parameters.setCoeffModulus(seal.CoeffModulus.BFVDefault(SLOT_COUNT, bits128))
  parameters.setPlainModulus(modulusObject)
  const context = seal.Context(parameters, true, bits128)
  if (!context.parametersSet()) throw new RangeError('the parameters are not secure')
  const encoder = seal.BatchEncoder(context)
  const evaluator = seal.Evaluator(context)
  // Ciphertexts are nearly random: to make 88 KB of 131, compression takes as long as encryption.
  const uncompressed = seal.ComprModeType.none as Seal['ComprModeType']

  return {
    /** The plaintext modulus, a prime: slots hold numbers modulo it. */
    modulus,

    createKeys: () =>
      scoped((own) => {
        const generator = own(seal.KeyGenerator(context))
        const publicKey = own(generator.createPublicKey()).saveArray()
        const secretKey = own(generator.secretKey()).saveArray()
        return { publicKey: copyOut(publicKey), secretKey: copyOut(secretKey) }
      }),

    /** @param values - fewer than 4096, each under `modulus`. */
    encrypt: (publicKey: Uint8Array, values: Uint32Array) =>
      scoped((own) => {
        const key = own(seal.PublicKey())
        key.loadArray(context, publicKey)
        const plain = own(made(encoder.encode(values)))
        return copyOut(own(made(own(seal.Encryptor(context, key)).encrypt(plain))).saveArray(uncompressed))
      }),

    /** The same ciphertexts give the same bytes, so a sum can be checked by adding again. */
    add: (ciphertexts: readonly Uint8Array[]) =>
      scoped((own) => {
        const [first, ...rest] = ciphertexts.map((bytes) => {
          const ciphertext = own(seal.CipherText())
          ciphertext.loadArray(context, bytes)
          return ciphertext
        })
        if (first === undefined) throw new RangeError('nothing to add')
        for (const next of rest) evaluator.add(first, next, first)
        return copyOut(first.saveArray(uncompressed))
      }),

    /** The first `count` slots, as signed numbers. */
    decrypt: (secretKey: Uint8Array, ciphertext: Uint8Array, count: number): Int32Array =>
      scoped((own) => {
        const key = own(seal.SecretKey())
        key.loadArray(context, secretKey)
        const encrypted = own(seal.CipherText())
        encrypted.loadArray(context, ciphertext)
        const decryptor = own(seal.Decryptor(context, key))
        // Below zero bits of noise budget, decryption is garbage that looks like numbers.
        if (decryptor.invariantNoiseBudget(encrypted) <= 0)
          throw new RangeError('the ciphertext is beyond its noise budget')
        return Int32Array.from(encoder.decode(own(made(decryptor.decrypt(encrypted))), true).subarray(0, count))
      }),
  }
}

export type Scheme = ReturnType<typeof createScheme>

let scheme: Promise<Scheme> | undefined

/** Loads SEAL once, at the first use: about 100 ms. */
export const loadScheme = (): Promise<Scheme> => (scheme ??= loadSeal().then(createScheme))
