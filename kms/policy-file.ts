import { asciiBytes, fromHex, toHex, type Bytes } from '../protocol/bytes.js'
import { KeyriseError } from '../protocol/errors.js'
import { isProductId } from '../protocol/image-signature.js'
import { sha256 } from '../protocol/sha256.js'
import { isKeyId } from './root-keys.js'
import {
  EVERY_FLOW,
  type ApprovalCounts,
  type Approver,
  type FlowPattern,
  type Policy,
  type PolicyImage,
  type PolicyKey,
  type PolicyProduct,
} from './policy.js'

/** A policy with everything said that may be left out. */
export type CheckedPolicy = Required<Policy>

const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/
/** A flow’s name (protocol/names.ts), whose end may be left open. */
const FLOW_PATTERN = /^(?:[A-Za-z0-9][A-Za-z0-9._-]{0,63}|(?:[A-Za-z0-9][A-Za-z0-9._-]{0,62})?\*)$/
const COUNT_MAX = 1024
/** One record of the ledger’s log holds the whole policy: about 600 images. */
const POLICY_LENGTH_MAX = 96 * 1024

/** True for a text that can stand in a list of flows. */
export const isFlowPattern = (claimed: unknown): claimed is FlowPattern =>
  typeof claimed === 'string' && FLOW_PATTERN.test(claimed)
const APPROVER_COUNT_MAX = 32

const KEYS = ['platforms', 'images', 'products', 'allowDebug', 'approvers', 'approvals', 'evidence', 'keys']
const SIMULATED: readonly string[] = ['simulated']
const IMAGE_KEYS = ['name', 'measurement', 'flows']
const PRODUCT_KEYS = ['name', 'signer', 'productId', 'svn', 'flows']

/** Reads a policy file: docs/policy.md. @throws {KeyriseError} ERR_CONFIG_INVALID, naming the key. */
export const parsePolicy = (text: string): CheckedPolicy => {
  let claimed: unknown
  try {
    claimed = JSON.parse(text)
  } catch {
    return refuse('the policy is not JSON')
  }
  const policy = readObject(claimed, 'policy', KEYS)
  const allowDebug = policy['allowDebug'] ?? false
  if (typeof allowDebug !== 'boolean') return refuse('allowDebug: true or false')
  return checkPolicy({
    evidence: policy['evidence'] === undefined ? SIMULATED : readList(policy['evidence'], 'evidence').map(readFormat),
    platforms: readList(policy['platforms'], 'platforms').map((key, index) => readHex(key, `platforms[${index}]`)),
    images: readList(policy['images'], 'images').map((item, index) => readImage(item, `images[${index}]`)),
    products: readOptionalList(policy['products'], 'products').map((item, index) =>
      readProduct(item, `products[${index}]`),
    ),
    allowDebug,
    approvers: readOptionalList(policy['approvers'], 'approvers').map((item, index) =>
      readApprover(item, `approvers[${index}]`),
    ),
    keys: readOptionalList(policy['keys'], 'keys').map((item, index) => readKey(item, `keys[${index}]`)),
    ...(policy['approvals'] === undefined ? {} : { approvals: readApprovals(policy['approvals']) }),
  })
}

/** Checks a policy made in code, and copies exactly what a policy has. @throws {KeyriseError} ERR_CONFIG_INVALID, naming the key. */
export const checkPolicy = (policy: Policy): CheckedPolicy => {
  const platforms = policy.platforms.map((key, index) => checkKey(key, `platforms[${index}]`))
  refuseDuplicates(platforms.map(toHex), (index) => `platforms[${index}]`)
  const approvers = (policy.approvers ?? []).map(({ name, key }, index) => ({
    name: checkName(name, `approvers[${index}].name`),
    key: checkKey(key, `approvers[${index}].key`),
  }))
  if (approvers.length > APPROVER_COUNT_MAX) return refuse(`approvers: at most ${APPROVER_COUNT_MAX}`)
  refuseDuplicates(
    approvers.map(({ key }) => toHex(key)),
    (index) => `approvers[${index}].key`,
  )
  const evidence = (policy.evidence ?? SIMULATED).map((format, index) => checkName(format, `evidence[${index}]`))
  refuseDuplicates(evidence, (index) => `evidence[${index}]`)
  const checked = {
    evidence,
    platforms,
    images: checkImages(policy.images),
    products: checkProducts(policy.products ?? []),
    // Only `true` itself: what is merely truthy was meant as something else.
    allowDebug: policy.allowDebug === true,
    approvers,
    approvals: checkApprovals(policy.approvals ?? { change: 0 }, approvers.length),
    keys: checkKeys(policy.keys ?? []),
  }
  return formatPolicy(checked).length <= POLICY_LENGTH_MAX
    ? checked
    : refuse(`the policy: at most ${POLICY_LENGTH_MAX} characters`)
}

const checkKeys = (keys: readonly PolicyKey[]): PolicyKey[] =>
  keys.map(({ id, flows }, index) => ({
    id: isKeyId(id) ? id : refuse(`keys[${index}].id: 1 to 32 lower-case letters, digits, hyphens`),
    flows: checkFlows(flows, `keys[${index}].flows`),
  }))

const checkImages = (images: readonly PolicyImage[]): PolicyImage[] => {
  const checked = images.map(({ name, measurement, flows }, index) => ({
    name: checkName(name, `images[${index}].name`),
    measurement: checkKey(measurement, `images[${index}].measurement`),
    flows: checkFlows(flows, `images[${index}].flows`),
  }))
  refuseDuplicates(
    checked.map(({ measurement }) => toHex(measurement)),
    (index) => `images[${index}].measurement`,
  )
  return checked
}

const checkProducts = (products: readonly PolicyProduct[]): PolicyProduct[] => {
  const checked = products.map(({ name, signer, productId, svn, flows }, index) => ({
    name: checkName(name, `products[${index}].name`),
    signer: checkKey(signer, `products[${index}].signer`),
    productId: isProductId(productId) ? productId : refuse(`products[${index}].productId: 0 to 65535`),
    svn: checkCount(svn, Number.MAX_SAFE_INTEGER, `products[${index}].svn`),
    flows: checkFlows(flows, `products[${index}].flows`),
  }))
  refuseDuplicates(
    checked.map(({ signer, productId }) => `${toHex(signer)} ${productId}`),
    (index) => `products[${index}]`,
  )
  return checked
}

/** More signatures than there are approvers would lock everybody out. */
const checkApprovals = (
  { change, migration, breakGlass, releases = [] }: ApprovalCounts,
  approverCount: number,
): ApprovalCounts => ({
  change: checkCount(change, approverCount, 'approvals.change'),
  migration:
    migration === undefined
      ? Math.max(1, change)
      : checkCount(migration, Math.max(1, approverCount), 'approvals.migration', 1),
  ...(breakGlass === undefined ? {} : { breakGlass: checkCount(breakGlass, approverCount, 'approvals.breakGlass') }),
  releases: releases.map(({ flows, count }, index) => ({
    flows: checkFlows(flows, `approvals.releases[${index}].flows`),
    count: checkCount(count, approverCount, `approvals.releases[${index}].count`, 1),
  })),
})

/**
 * What a policy says in full, as a file that `parsePolicy` reads: the same text however the file was laid out.
 * @param policy - checked.
 */
export const formatPolicy = ({
  evidence,
  platforms,
  images,
  products,
  allowDebug,
  approvers,
  approvals,
  keys,
}: CheckedPolicy): string =>
  JSON.stringify({
    evidence,
    platforms: platforms.map(toHex),
    images: images.map(({ name, measurement, flows = EVERY_FLOW }) => ({
      name,
      measurement: toHex(measurement),
      flows,
    })),
    products: products.map(({ name, signer, productId, svn, flows = EVERY_FLOW }) => ({
      name,
      signer: toHex(signer),
      productId,
      svn,
      flows,
    })),
    allowDebug,
    approvers: approvers.map(({ name, key }) => ({ name, key: toHex(key) })),
    approvals: {
      change: approvals.change,
      migration: approvals.migration,
      // Left out where it is not said: the text of policies of before there was such a thing stays what it was.
      ...(approvals.breakGlass === undefined ? {} : { breakGlass: approvals.breakGlass }),
      releases: (approvals.releases ?? []).map(({ flows, count }) => ({ flows, count })),
    },
    // Left out where there are none, so that a policy of before has the text, and the digest, that it had.
    ...(keys.length === 0 ? {} : { keys: keys.map(({ id, flows }) => ({ id, flows })) }),
  })

/** SHA-256 of `formatPolicy` under a label: what the log names as in force, and what approvers of a change sign. 32 bytes. */
export const policyDigest = (policy: CheckedPolicy): Bytes =>
  sha256(asciiBytes(`keyrise/v1/policy\n${formatPolicy(policy)}`))

const readFormat = (item: unknown, index: number): string => readText(item, `evidence[${index}]`)

const readImage = (item: unknown, where: string): PolicyImage => {
  const image = readObject(item, where, IMAGE_KEYS)
  return {
    name: readText(image['name'], `${where}.name`),
    measurement: readHex(image['measurement'], `${where}.measurement`),
    ...readFlows(image['flows'], `${where}.flows`),
  }
}

const readProduct = (item: unknown, where: string): PolicyProduct => {
  const product = readObject(item, where, PRODUCT_KEYS)
  return {
    name: readText(product['name'], `${where}.name`),
    signer: readHex(product['signer'], `${where}.signer`),
    productId: readNumber(product['productId'], `${where}.productId`),
    svn: readNumber(product['svn'], `${where}.svn`),
    ...readFlows(product['flows'], `${where}.flows`),
  }
}

const readKey = (item: unknown, where: string): PolicyKey => {
  const key = readObject(item, where, ['id', 'flows'])
  if (key['flows'] === undefined) return refuse(`${where}.flows: a list of flows`)
  return { id: readText(key['id'], `${where}.id`), flows: readFlows(key['flows'], `${where}.flows`).flows ?? [] }
}

const readApprover = (item: unknown, where: string): Approver => {
  const approver = readObject(item, where, ['name', 'key'])
  return { name: readText(approver['name'], `${where}.name`), key: readHex(approver['key'], `${where}.key`) }
}

const readApprovals = (claimed: unknown): ApprovalCounts => {
  const approvals = readObject(claimed, 'approvals', ['change', 'migration', 'breakGlass', 'releases'])
  const { change = 0, migration, breakGlass } = approvals
  return {
    change: readNumber(change, 'approvals.change'),
    ...(migration === undefined ? {} : { migration: readNumber(migration, 'approvals.migration') }),
    ...(breakGlass === undefined ? {} : { breakGlass: readNumber(breakGlass, 'approvals.breakGlass') }),
    releases: readOptionalList(approvals['releases'], 'approvals.releases').map((item, index) => {
      const where = `approvals.releases[${index}]`
      const release = readObject(item, where, ['flows', 'count'])
      if (release['flows'] === undefined) return refuse(`${where}.flows: a list of flows`)
      return {
        flows: readFlows(release['flows'], `${where}.flows`).flows ?? [],
        count: readNumber(release['count'], `${where}.count`),
      }
    }),
  }
}

const readFlows = (claimed: unknown, where: string): { flows?: FlowPattern[] } =>
  claimed === undefined
    ? {}
    : { flows: readList(claimed, where).map((flow, index) => readText(flow, `${where}[${index}]`)) }

const refuse = (detail: string): never => {
  throw new KeyriseError('ERR_CONFIG_INVALID', { detail })
}

const readObject = (claimed: unknown, where: string, keys: readonly string[]): Readonly<Record<string, unknown>> => {
  if (typeof claimed !== 'object' || claimed === null || Array.isArray(claimed)) return refuse(`${where}: an object`)
  const unknown = Object.keys(claimed).find((key) => !keys.includes(key))
  if (unknown !== undefined) return refuse(`${where}: only ${keys.join(', ')}`)
  return claimed as Readonly<Record<string, unknown>>
}

const readList = (claimed: unknown, where: string): readonly unknown[] =>
  Array.isArray(claimed) && claimed.length <= COUNT_MAX ? claimed : refuse(`${where}: a list of at most ${COUNT_MAX}`)

const readOptionalList = (claimed: unknown, where: string): readonly unknown[] =>
  claimed === undefined ? [] : readList(claimed, where)

const readText = (claimed: unknown, where: string): string =>
  typeof claimed === 'string' ? claimed : refuse(`${where}: a text`)

const readNumber = (claimed: unknown, where: string): number =>
  typeof claimed === 'number' ? claimed : refuse(`${where}: a whole number`)

const readHex = (claimed: unknown, where: string): Bytes => {
  const bytes = typeof claimed === 'string' && claimed.length === 64 ? fromHex(claimed) : undefined
  return bytes ?? refuse(`${where}: 64 lower-case hex digits`)
}

const checkName = (name: string, where: string): string =>
  NAME.test(name) ? name : refuse(`${where}: 1 to 64 letters, digits, . _ -`)

const checkKey = (key: Uint8Array, where: string): Bytes =>
  key.length === 32 ? new Uint8Array(key) : refuse(`${where}: 32 bytes`)

const checkCount = (count: number, max: number, where: string, min = 0): number =>
  Number.isSafeInteger(count) && count >= min && count <= max
    ? count
    : refuse(
        max === Number.MAX_SAFE_INTEGER
          ? `${where}: ${min} or more`
          : `${where}: ${min} to ${max}, the approvers there are`,
      )

const checkFlows = (flows: readonly FlowPattern[] | undefined, where: string): readonly FlowPattern[] => {
  const checked = flows ?? EVERY_FLOW
  if (checked.length === 0 || checked.length > COUNT_MAX) return refuse(`${where}: 1 to ${COUNT_MAX} flows`)
  const wrong = checked.findIndex((flow) => !isFlowPattern(flow))
  return wrong === -1 ? [...checked] : refuse(`${where}[${wrong}]: a flow’s name, which may end with *`)
}

const refuseDuplicates = (keys: readonly string[], where: (index: number) => string): void => {
  keys.forEach((key, index) => {
    if (keys.indexOf(key) < index) refuse(`${where(index)}: listed twice`)
  })
}
