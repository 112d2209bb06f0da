import { equalPublicBytes, fromHex, type Bytes } from '../protocol/bytes.js'
import { KeyriseError } from '../protocol/errors.js'

/** An image that may hold flows, under the name that peers’ rosters show. */
export interface PolicyImage {
  readonly name: string
  /** SHA-256 of the image, 32 bytes. */
  readonly measurement: Uint8Array
}

/**
 * Who gets keys. A flow opens only for a listed image on a listed platform, and from then on only for the image that opened
 * it. An image taken off the list gets nothing any more.
 */
export interface Policy {
  /** Ed25519 keys of platforms whose evidence counts, 32 bytes each. */
  readonly platforms: readonly Uint8Array[]
  readonly images: readonly PolicyImage[]
  /**
   * Debug images get keys too. They tell whoever runs them what goes on inside: for development alone, with keys that protect
   * nothing. False unless told.
   */
  readonly allowDebug?: boolean
}

const IMAGE_NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/
const COUNT_MAX = 1024

/**
 * Reads a policy file: `{ "platforms": ["<hex>"], "images": [{ "name": "party", "measurement": "<hex>" }] }`, and
 * `"allowDebug": true` where debug images are to get keys.
 * @throws {KeyriseError} ERR_CONFIG_INVALID, naming the key.
 */
export const parsePolicy = (text: string): Policy => {
  let claimed: unknown
  try {
    claimed = JSON.parse(text)
  } catch {
    return refuse('the policy is not JSON')
  }
  const policy = readObject(claimed, 'policy', ['platforms', 'images', 'allowDebug'])
  const allowDebug = policy['allowDebug'] ?? false
  if (typeof allowDebug !== 'boolean') return refuse('allowDebug: true or false')
  return checkPolicy({
    platforms: readList(policy['platforms'], 'platforms').map((key, index) => readHex(key, `platforms[${index}]`)),
    images: readList(policy['images'], 'images').map((item, index) => {
      const image = readObject(item, `images[${index}]`, ['name', 'measurement'])
      const name = image['name']
      if (typeof name !== 'string') return refuse(`images[${index}].name: a text`)
      return { name, measurement: readHex(image['measurement'], `images[${index}].measurement`) }
    }),
    allowDebug,
  })
}

/** Checks a policy made in code, and copies exactly what a policy has. @throws {KeyriseError} ERR_CONFIG_INVALID, naming the key. */
export const checkPolicy = (policy: Policy): Policy => {
  const images = policy.images.map(({ name, measurement }, index) => {
    if (!IMAGE_NAME.test(name)) return refuse(`images[${index}].name: 1 to 64 letters, digits, . _ -`)
    return { name, measurement: checkKey(measurement, `images[${index}].measurement`) }
  })
  refuseDuplicates(
    images.map(({ measurement }) => measurement),
    (index) => `images[${index}].measurement`,
  )
  const platforms = policy.platforms.map((key, index) => checkKey(key, `platforms[${index}]`))
  refuseDuplicates(platforms, (index) => `platforms[${index}]`)
  // Only `true` itself: what is merely truthy was meant as something else.
  return { platforms, images, allowDebug: policy.allowDebug === true }
}

/** The image of a measurement. @throws {KeyriseError} ERR_POLICY_DENIED when it is not listed. */
export const findImage = (policy: Policy, measurement: Uint8Array): PolicyImage => {
  const image = policy.images.find((listed) => equalPublicBytes(listed.measurement, measurement))
  if (image === undefined) throw new KeyriseError('ERR_POLICY_DENIED', { detail: 'the image is not listed' })
  return image
}

const refuse = (detail: string): never => {
  throw new KeyriseError('ERR_CONFIG_INVALID', { detail })
}

const readObject = (claimed: unknown, where: string, keys: readonly string[]): Readonly<Record<string, unknown>> => {
  if (typeof claimed !== 'object' || claimed === null || Array.isArray(claimed)) return refuse(`${where}: an object`)
  const unknown = Object.keys(claimed).find((key) => !keys.includes(key))
  if (unknown !== undefined) return refuse(`${where}: only ${keys.join(' and ')}`)
  return claimed as Readonly<Record<string, unknown>>
}

const readList = (claimed: unknown, where: string): readonly unknown[] =>
  Array.isArray(claimed) && claimed.length <= COUNT_MAX ? claimed : refuse(`${where}: a list of at most ${COUNT_MAX}`)

const readHex = (claimed: unknown, where: string): Bytes => {
  const bytes = typeof claimed === 'string' && claimed.length === 64 ? fromHex(claimed) : undefined
  return bytes ?? refuse(`${where}: 64 lower-case hex digits`)
}

const checkKey = (key: Uint8Array, where: string): Bytes =>
  key.length === 32 ? new Uint8Array(key) : refuse(`${where}: 32 bytes`)

const refuseDuplicates = (keys: readonly Uint8Array[], where: (index: number) => string): void => {
  keys.forEach((key, index) => {
    if (keys.findIndex((other) => equalPublicBytes(other, key)) < index) refuse(`${where(index)}: listed twice`)
  })
}
