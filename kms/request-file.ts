import { fromHex, toHex, type Bytes } from '../protocol/bytes.js'
import { KeyriseError } from '../protocol/errors.js'
import { isProductId } from '../protocol/image-signature.js'
import { parseFlowId } from '../protocol/names.js'
import type {
  Approval,
  Approved,
  ApprovalRequest,
  BreakGlassApproval,
  MigrationGrant,
  PolicyChange,
  ReleaseApproval,
} from './approvals.js'
import { isFlowPattern } from './policy-file.js'
import { checkReason } from './reason.js'

/** Requests and approvals as files that people read before they sign: JSON, with bytes in hex and times as in ISO 8601. */

/** One record of the ledger’s log holds it with its approvals. */
const REQUEST_LENGTH_MAX = 64 * 1024
const FLOW_COUNT_MAX = 1024
const APPROVAL_COUNT_MAX = 64

export const formatRequest = (request: ApprovalRequest): string => JSON.stringify(requestFields(request), undefined, 2)

/** A request together with the approvals of it: what the ledger’s log keeps. */
export const formatApproved = ({ request, approvals }: Approved): string =>
  JSON.stringify({ ...requestFields(request), approvals: approvals.map(approvalFields) }, undefined, 2)

export const formatApproval = (approval: Approval): string => JSON.stringify(approvalFields(approval), undefined, 2)

/** Reads what `formatRequest` or `formatApproved` wrote. @throws {KeyriseError} ERR_CONFIG_INVALID, naming the field. */
export const parseApproved = (text: string): Approved => {
  const f = new Fields(text, 'the request')
  const approvals = f.list('approvals', APPROVAL_COUNT_MAX, (claimed) => readApproval(new Fields(claimed, 'approvals')))
  return { request: readRequest(f), approvals }
}

/** @throws {KeyriseError} ERR_CONFIG_INVALID, naming the field. */
export const parseApproval = (text: string): Approval => readApproval(new Fields(text, 'the approval'))

const requestFields = (request: ApprovalRequest): object => {
  switch (request.kind) {
    case 'policy-change': {
      const { kind, kms, from, to } = request
      return { request: kind, kms: toHex(kms), from: toHex(from), to: toHex(to) }
    }
    case 'migration': {
      const { kind, kms, flows, from, to, notAfterMs } = request
      const target =
        'measurement' in to
          ? { measurement: toHex(to.measurement) }
          : { signer: toHex(to.signer), productId: to.productId, svn: to.svn }
      return { request: kind, kms: toHex(kms), flows, from: toHex(from), to: target, notAfter: timeText(notAfterMs) }
    }
    case 'release': {
      const { kind, kms, flow, incarnation, measurement, notAfterMs } = request
      const fields = { flow, incarnation, measurement: toHex(measurement), notAfter: timeText(notAfterMs) }
      return { request: kind, kms: toHex(kms), ...fields }
    }
    case 'break-glass': {
      const { kind, kms, reason, notAfterMs } = request
      return { request: kind, kms: toHex(kms), reason, notAfter: timeText(notAfterMs) }
    }
  }
}

const approvalFields = ({ key, signature }: Approval): object => ({ key: toHex(key), signature: toHex(signature) })

const timeText = (timeMs: number): string => new Date(timeMs).toISOString()

const readRequest = (f: Fields): ApprovalRequest => {
  const kind = f.text('request')
  if (kind === 'policy-change') return readChange(f)
  if (kind === 'migration') return readMigration(f)
  if (kind === 'break-glass') return readBreakGlass(f)
  return kind === 'release' ? readRelease(f) : f.refuse('request')
}

const readChange = (f: Fields): PolicyChange => {
  f.only('request', 'kms', 'from', 'to', 'approvals')
  return { kind: 'policy-change', kms: f.bytes('kms'), from: f.bytes('from'), to: f.bytes('to') }
}

const readMigration = (f: Fields): MigrationGrant => {
  f.only('request', 'kms', 'flows', 'from', 'to', 'notAfter', 'approvals')
  const flows = f.list('flows', FLOW_COUNT_MAX, (claimed) =>
    isFlowPattern(claimed) ? claimed : f.refuse('flows: flows’ names, which may end with *'),
  )
  if (flows.length === 0) return f.refuse('flows: at least one')
  const to = new Fields(f.claimed('to'), 'to')
  return {
    kind: 'migration',
    kms: f.bytes('kms'),
    flows,
    from: f.bytes('from'),
    to: to.claimed('measurement') === undefined ? readProduct(to) : readExact(to),
    notAfterMs: f.time('notAfter'),
  }
}

const readExact = (f: Fields): MigrationGrant['to'] => {
  f.only('measurement')
  return { measurement: f.bytes('measurement') }
}

const readProduct = (f: Fields): MigrationGrant['to'] => {
  f.only('signer', 'productId', 'svn')
  const productId = f.claimed('productId')
  return {
    signer: f.bytes('signer'),
    productId: isProductId(productId) ? productId : f.refuse('productId'),
    svn: f.count('svn'),
  }
}

const readRelease = (f: Fields): ReleaseApproval => {
  f.only('request', 'kms', 'flow', 'incarnation', 'measurement', 'notAfter', 'approvals')
  return {
    kind: 'release',
    kms: f.bytes('kms'),
    flow: parseFlowId(f.claimed('flow')),
    incarnation: f.count('incarnation'),
    measurement: f.bytes('measurement'),
    notAfterMs: f.time('notAfter'),
  }
}

const readBreakGlass = (f: Fields): BreakGlassApproval => {
  f.only('request', 'kms', 'reason', 'notAfter', 'approvals')
  const reason = f.text('reason')
  checkReason(reason)
  return { kind: 'break-glass', kms: f.bytes('kms'), reason, notAfterMs: f.time('notAfter') }
}

const readApproval = (f: Fields): Approval => {
  f.only('key', 'signature')
  return { key: f.bytes('key'), signature: f.bytes('signature', 64) }
}

/** Fields of claimed JSON; each reader names what it refuses. */
class Fields {
  readonly #fields: Readonly<Record<string, unknown>>
  readonly #where: string

  /** @param claimed - JSON text, or what came out of one. */
  constructor(claimed: unknown, where: string) {
    this.#where = where
    const value = typeof claimed === 'string' ? this.#parse(claimed) : claimed
    if (typeof value !== 'object' || value === null || Array.isArray(value)) this.refuse('an object')
    this.#fields = value as Readonly<Record<string, unknown>>
  }

  refuse(what: string): never {
    throw new KeyriseError('ERR_CONFIG_INVALID', { detail: `${this.#where}: ${what}` })
  }

  only(...keys: readonly string[]): void {
    for (const key of Object.keys(this.#fields)) if (!keys.includes(key)) this.refuse(`only ${keys.join(', ')}`)
  }

  claimed(field: string): unknown {
    return Object.hasOwn(this.#fields, field) ? this.#fields[field] : undefined
  }

  text(field: string): string {
    const value = this.claimed(field)
    return typeof value === 'string' ? value : this.refuse(`${field}: a text`)
  }

  bytes(field: string, size = 32): Bytes {
    const text = this.text(field)
    return (
      (text.length === 2 * size ? fromHex(text) : undefined) ??
      this.refuse(`${field}: ${2 * size} lower-case hex digits`)
    )
  }

  count(field: string): number {
    const value = this.claimed(field)
    return Number.isSafeInteger(value) && (value as number) >= 0
      ? (value as number)
      : this.refuse(`${field}: a whole number`)
  }

  /** Only what `toISOString` writes, so that a time has one form. */
  time(field: string): number {
    const text = this.text(field)
    const timeMs = Date.parse(text)
    return Number.isSafeInteger(timeMs) && timeMs >= 0 && timeText(timeMs) === text
      ? timeMs
      : this.refuse(`${field}: a time like 2026-12-31T00:00:00.000Z`)
  }

  /** Empty where there is none. */
  list<T>(field: string, countMax: number, read: (claimed: unknown) => T): T[] {
    const value = this.claimed(field) ?? []
    return Array.isArray(value) && value.length <= countMax
      ? value.map((item: unknown) => read(item))
      : this.refuse(`${field}: a list of at most ${countMax}`)
  }

  #parse(text: string): unknown {
    if (text.length > REQUEST_LENGTH_MAX) this.refuse(`at most ${REQUEST_LENGTH_MAX} characters`)
    try {
      return JSON.parse(text)
    } catch {
      return this.refuse('not JSON')
    }
  }
}
