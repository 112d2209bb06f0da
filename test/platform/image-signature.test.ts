import { createHash, createPrivateKey, createPublicKey, generateKeyPairSync } from 'node:crypto'
import { existsSync } from 'node:fs'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { ed25519 } from '@noble/curves/ed25519.js'
import test from 'ava'
import { concatBytes, copyBytes, fromHex, toHex, type Bytes } from '../../protocol/bytes.js'
import { encodeCbor } from '../../protocol/cbor.js'
import { readEvidence, type Claims } from '../../protocol/evidence.js'
import { prepareSign1 } from '../../protocol/cose.js'
import { prepareSignature } from '../../protocol/image-signature.js'
import { composeImage, readImage, writeImage, type Image } from '../../platform/image.js'
import { signImage, verifySignature, type ImageSignature } from '../../platform/image-signature.js'
import type { SimulatedPlatform } from '../../platform/simulated.js'
import { buildTarget, Host, launchTarget, withPlatform } from '../enclave/target.js'

const KEY = generateKeyPairSync('ed25519').privateKey
const OTHER_KEY = generateKeyPairSync('ed25519').privateKey

const named = (name: string): Image =>
  composeImage(
    { format: 'keyrise-image/2', name, svn: 1, debug: false, ecalls: [], ocalls: [], refusals: [] },
    "'use strict'",
  )
const IMAGE = named('party')
const OTHER_IMAGE = named('other')

const signatureOf = ({ signature }: Image): ImageSignature => {
  if (signature === undefined) throw new Error('not signed')
  return signature
}

const withFile = async (use: (file: string) => Promise<void>): Promise<void> => {
  const directory = await mkdtemp(join(tmpdir(), 'keyrise-signed-'))
  try {
    await use(join(directory, 'party.image'))
  } finally {
    await rm(directory, { recursive: true })
  }
}

test('a signature names its signer by the digest of the public key, as openssl would compute it', (t) => {
  const signed = signImage(IMAGE, { key: KEY, productId: 7 })
  const { signer, productId } = signatureOf(signed)
  const spki = createPublicKey(KEY).export({ format: 'der', type: 'spki' })
  t.is(toHex(signer), createHash('sha256').update(spki).digest('hex'))
  t.is(productId, 7)
  t.deepEqual(signed.measurement, IMAGE.measurement)
  t.deepEqual(signImage(IMAGE, { key: KEY, productId: 7 }), signed)
  t.notDeepEqual(signatureOf(signImage(IMAGE, { key: OTHER_KEY, productId: 7 })).signer, signer)
})

test('a signature with any bit changed, or cut anywhere, is refused', (t) => {
  const { bytes } = signatureOf(signImage(IMAGE, { key: KEY, productId: 7 }))
  for (let bit = 0; bit < bytes.length * 8; bit++) {
    const changed = copyBytes(bytes)
    changed[bit >>> 3] = (changed[bit >>> 3] ?? 0) ^ (1 << (bit & 7))
    t.throws(() => verifySignature(changed, IMAGE.measurement), { code: 'ERR_IMAGE_SIGNATURE' }, `bit ${bit}`)
  }
  for (let size = 0; size < bytes.length; size++)
    t.throws(() => verifySignature(bytes.subarray(0, size), IMAGE.measurement), { code: 'ERR_IMAGE_SIGNATURE' })
  t.throws(() => verifySignature(new Uint8Array(1 << 20), IMAGE.measurement), { code: 'ERR_IMAGE_SIGNATURE' })
})

test('a payload of another shape is refused, whatever it is signed with', (t) => {
  const right = {
    format: 'keyrise-image-signature/1',
    measurement: IMAGE.measurement,
    productId: 1,
    publicKey: new Uint8Array(32).fill(7),
  }
  for (const payload of [
    7,
    {},
    { ...right, more: 1 },
    { ...right, format: 'keyrise-image-signature/2' },
    { ...right, measurement: new Uint8Array(31) },
    { ...right, productId: -1 },
    { ...right, productId: 65_536 },
    { ...right, productId: '1' },
    { ...right, publicKey: new Uint8Array(33) },
    right,
  ]) {
    const claimed = prepareSign1(encodeCbor(payload)).join(new Uint8Array(64))
    t.throws(() => verifySignature(claimed, IMAGE.measurement), { code: 'ERR_IMAGE_SIGNATURE' })
  }
})

test('a key under which anybody can sign anything is nobody’s', (t) => {
  const { Point } = ed25519
  const keys = [...Array(8).keys()].map((factor) => {
    // A point of order 8 is what is left of any point times the order of the group.
    const point = Point.fromBytes(fromHex('c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a') as Bytes)
    return (factor === 0 ? Point.ZERO : point.multiplyUnsafe(BigInt(factor))).toBytes()
  })
  t.is(new Set(keys.map(toHex)).size, 8)
  for (const publicKey of keys) {
    t.true(Point.fromBytes(publicKey).isSmallOrder())
    const { join } = prepareSignature({ measurement: IMAGE.measurement, productId: 1, publicKey })
    // R = A^k or zero, S = 0: some of these are right, as far as the arithmetic goes.
    for (const r of keys)
      t.throws(() => verifySignature(join(concatBytes(r, new Uint8Array(32))), IMAGE.measurement), {
        code: 'ERR_IMAGE_SIGNATURE',
        message: /public key/,
      })
  }
})

test('only an Ed25519 private key signs, and only for a product id of 16 bits', (t) => {
  const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey
  for (const key of [rsa, createPublicKey(KEY)])
    t.throws(() => signImage(IMAGE, { key, productId: 1 }), { code: 'ERR_KEY_INVALID' })
  for (const productId of [-1, 65_536, 1.5, Number.NaN])
    t.throws(() => signImage(IMAGE, { key: KEY, productId }), { code: 'ERR_CONFIG_INVALID' })
  t.notThrows(() =>
    signImage(IMAGE, { key: createPrivateKey(KEY.export({ format: 'pem', type: 'pkcs8' })), productId: 65_535 }),
  )
})

test('a signature travels in a file beside its image', async (t) => {
  await withFile(async (file) => {
    const signed = signImage(IMAGE, { key: KEY, productId: 7 })
    await writeImage(file, signed)
    t.deepEqual(await readImage(file), signed)
    t.deepEqual(await readFile(file, 'utf8'), IMAGE.source)
    await rm(`${file}.sig`)
    t.deepEqual(await readImage(file), IMAGE)
  })
})

test('a signature of another image, or one that is damaged, is refused when the image is read', async (t) => {
  await withFile(async (file) => {
    await writeImage(file, IMAGE)
    await writeFile(`${file}.sig`, signatureOf(signImage(OTHER_IMAGE, { key: KEY, productId: 7 })).bytes)
    await t.throwsAsync(readImage(file), { code: 'ERR_IMAGE_SIGNATURE', message: /another image/ })
    await writeFile(`${file}.sig`, 'x'.repeat(5000))
    await t.throwsAsync(readImage(file), { code: 'ERR_IMAGE_SIGNATURE' })
  })
})

test('an image that is built again keeps its signature; another image does not inherit it', async (t) => {
  await withFile(async (file) => {
    const signed = signImage(IMAGE, { key: KEY, productId: 7 })
    await writeImage(file, signed)
    await writeImage(file, IMAGE)
    t.deepEqual(await readImage(file), signed)
    await writeImage(file, OTHER_IMAGE)
    t.false(existsSync(`${file}.sig`))
    t.deepEqual(await readImage(file), OTHER_IMAGE)
  })
})

const target = buildTarget()

const attested = async (platform: SimulatedPlatform, image: Image): Promise<Claims> => {
  const host = new Host(launchTarget(platform, image))
  await host.ready()
  const { claims } = readEvidence((await host.call('attest', {})) as Bytes)
  await host.instance.terminate()
  return claims
}

test('evidence carries signer and product id as the signature has them, whatever the host says beside it', async (t) => {
  await withPlatform(async (platform) => {
    const signed = signImage(await target, { key: KEY, productId: 7 })
    const signature = signatureOf(signed)
    const { signer } = signature
    t.deepEqual((await attested(platform, signed)).signed, { signer, productId: 7 })
    const liar = { ...signature, signer: new Uint8Array(32), productId: 9 }
    t.deepEqual((await attested(platform, { ...signed, signature: liar })).signed, { signer, productId: 7 })
    t.is((await attested(platform, await target)).signed, null)
  })
})

test('no image starts under a signature that is not its own', async (t) => {
  await withPlatform(async (platform) => {
    const image = await target
    const foreign = signatureOf(signImage(OTHER_IMAGE, { key: KEY, productId: 7 }))
    const own = signatureOf(signImage(image, { key: KEY, productId: 7 }))
    const forged = copyBytes(own.bytes)
    forged[forged.length - 1] = (forged[forged.length - 1] ?? 0) ^ 1
    for (const signature of [foreign, { ...own, bytes: forged }, { ...own, bytes: new Uint8Array(0) }])
      t.throws(() => launchTarget(platform, { ...image, signature }), { code: 'ERR_IMAGE_SIGNATURE' })
  })
})

test('a signature is read once: it cannot change between verifying and attesting', async (t) => {
  await withPlatform(async (platform) => {
    const image = await target
    const [first, second] = [KEY, OTHER_KEY].map((key) => signatureOf(signImage(image, { key, productId: 7 }))) as [
      ImageSignature,
      ImageSignature,
    ]
    let reads = 0
    const flipping = {
      ...image,
      get signature() {
        return reads++ === 0 ? first : second
      },
    }
    t.deepEqual((await attested(platform, flipping)).signed?.signer, first.signer)
    t.is(reads, 1)
    const shared = copyBytes(first.bytes)
    const instance = launchTarget(platform, { ...image, signature: { ...first, bytes: shared } })
    shared.set(second.bytes)
    const host = new Host(instance)
    await host.ready()
    const { claims } = readEvidence((await host.call('attest', {})) as Bytes)
    t.deepEqual(claims.signed?.signer, first.signer)
    await instance.terminate()
  })
})
