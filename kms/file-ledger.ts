import { copyBytes, equalPublicBytes, type Bytes } from '../protocol/bytes.js'
import { decodeCbor, encodeCbor } from '../protocol/cbor.js'
import { FieldReader } from '../protocol/check.js'
import { KeyriseError } from '../protocol/errors.js'
import { PRODUCT_ID_MAX, type ImageSigner } from '../protocol/image-signature.js'
import { PREDECESSOR_COUNT_MAX, REASON_LENGTH_MAX } from '../protocol/limits.js'
import { parseFlowId, type FlowId } from '../protocol/names.js'
import type { FileSystem } from '../protocol/ports.js'
import type { Head } from '../protocol/session.js'
import {
  decodeReceiptBody,
  firstLink,
  linkAfter,
  splitReceipt,
  type Receipt,
  type ReceiptLink,
} from '../protocol/receipts.js'
import { encodeStaleAcceptance, type StaleAcceptance } from '../protocol/statements.js'
import { verifyEd25519 } from '../protocol/crypto/keys.js'
import type { Approved } from './approvals.js'
import { formatApproved, parseApproved } from './request-file.js'
import { equalStates, type FlowState, type Ledger, type Member, type Publication } from './ledger.js'
import { RecentReceipts } from './recent-receipts.js'
import { AppendLog, encodeReceiptRecord, type Entry, type MakeReceipt } from './log.js'
import { decodeLog } from './log-frames.js'

/** The ledger’s file in the KMS’s directory. */
export const LEDGER_NAME = 'ledger.log'
const CODE = 'ERR_LEDGER_DAMAGED'
/** Of a record’s; a record is below 128 KiB. */
const TEXT_LENGTH_MAX = 128 * 1024
/** Receipts that are kept in memory, the newest, for operators to look at. */
const RECENT_COUNT = 512

/** What a log tells: whose it is, and what it has come to. */
interface Contents {
  readonly identity: Bytes
  readonly flows: Map<FlowId, FlowState>
  readonly publications: Map<FlowId, Publication>
  /** Oldest first, as they were signed. */
  readonly receipts: Bytes[]
  /** Where the next receipt stands. */
  link: ReceiptLink
  readonly approved: Approved[]
  /** The policy in force, as `formatPolicy` wrote it; undefined before the first. */
  policy: string | undefined
}

/** A ledger in one append-only log of the KMS’s directory. */
export class FileLedger implements Ledger {
  /** Told how long each append took, in seconds. */
  onAppend: ((seconds: number) => void) | undefined
  readonly #log: AppendLog
  readonly #durable: Map<FlowId, FlowState>
  /** With what is being written: a swap is decided against it, and nobody is shown it. */
  readonly #latest: Map<FlowId, FlowState>
  readonly #publications: Map<FlowId, Publication>
  readonly #approved: Approved[]
  readonly #recent: RecentReceipts
  #policy: string | undefined

  private constructor(log: AppendLog, { flows, publications, approved, policy, receipts }: Contents) {
    this.#log = log
    this.#recent = new RecentReceipts(receipts, RECENT_COUNT)
    this.#durable = flows
    this.#latest = new Map(flows)
    this.#publications = publications
    this.#approved = approved
    this.#policy = policy
  }

  /**
   * Begins a ledger for a KMS. Replaces one, so the caller looks first.
   * @param receipt - of that it was begun.
   */
  static async create(fs: FileSystem, directory: string, identity: Uint8Array, receipt?: MakeReceipt): Promise<void> {
    const first = encodeCbor(['keyrise/v1/ledger', { identity }])
    const receipts = receipt === undefined ? [] : [encodeReceiptRecord(receipt(firstLink(identity)))]
    await AppendLog.create(fs, directory, LEDGER_NAME, [first, ...receipts])
  }

  /** What a ledger’s file says, without opening it for writing. Undefined where there is none. */
  static async inspect(fs: FileSystem, directory: string): Promise<Inspected | undefined> {
    const records = await AppendLog.read(fs, directory, LEDGER_NAME)
    return records && inspected(records)
  }

  /**
   * What a copy of a ledger’s file says, and the copy without a last frame that was being written as it was made.
   * @throws {KeyriseError} ERR_LEDGER_DAMAGED.
   */
  static inspectCopy(claimed: Bytes): Inspected & { readonly whole: Bytes } {
    const { records, end } = decodeLog(claimed)
    return { ...inspected(records), whole: claimed.subarray(0, end.size) }
  }

  /**
   * @param identity - the KMS identity whose ledger it must be.
   * @throws {KeyriseError} ERR_LEDGER_MISSING, ERR_LEDGER_DAMAGED, ERR_STORE_*.
   */
  static async open(fs: FileSystem, directory: string, identity: Uint8Array): Promise<FileLedger> {
    const opened = await AppendLog.open(fs, directory, LEDGER_NAME, (records) => {
      const contents = readContents(records)
      if (equalPublicBytes(contents.identity, identity)) return contents
      throw new KeyriseError(CODE, { detail: 'it belongs to another KMS identity' })
    })
    if (opened === undefined) throw new KeyriseError('ERR_LEDGER_MISSING')
    const ledger = new FileLedger(opened.log, opened.contents)
    // Any older process that still has this log open sees that it has grown, and stops.
    await opened.log.append({ record: encodeCbor(['start', {}]) })
    return ledger
  }

  /** Whether it answers nothing any more. */
  get hasFailed(): boolean {
    return this.#log.hasFailed
  }

  /** Resolves when no other process has taken the ledger since. @throws {KeyriseError} ERR_LEDGER_TAKEN, ERR_LEDGER_DAMAGED, ERR_STORE_IO. */
  confirm(): Promise<void> {
    return this.#log.confirm()
  }

  async read(flow: FlowId): Promise<FlowState | undefined> {
    await this.#log.confirm()
    return this.#durable.get(flow)
  }

  async compareAndSwap(
    flow: FlowId,
    expected: FlowState | undefined,
    next: FlowState,
    receipt?: MakeReceipt,
    meanwhile?: () => void,
  ): Promise<boolean> {
    if (!equalStates(this.#latest.get(flow), expected)) return false
    this.#latest.set(flow, next)
    try {
      await this.#append({ record: encodeState(flow, next), receipt, meanwhile })
    } catch (error) {
      const durable = this.#durable.get(flow)
      if (durable === undefined) this.#latest.delete(flow)
      else this.#latest.set(flow, durable)
      throw error
    }
    this.#durable.set(flow, next)
    return true
  }

  record(receipt: MakeReceipt): Promise<void> {
    return this.#append({ receipt })
  }

  async publish(flow: FlowId, { signingKey, values }: Publication): Promise<void> {
    await this.#log.append({ record: encodeCbor(['publication', { flow, signingKey, values }]) })
    this.#publications.set(flow, { signingKey, values })
  }

  async members(task: FlowId): Promise<readonly Member[]> {
    await this.#log.confirm()
    const members: Member[] = []
    for (const [flow, publication] of this.#publications) {
      const state = this.#durable.get(flow)
      if (state?.task === task && !state.destroyed) members.push({ flow, state, ...publication })
    }
    return members.sort((a, b) => (a.flow < b.flow ? -1 : 1))
  }

  approved(): readonly Approved[] {
    return this.#approved
  }

  /** Keeps what approvers signed, durably. Whether it counts is decided when it is made use of. */
  async addApproved(approved: Approved, receipt?: MakeReceipt): Promise<void> {
    await this.#append({ record: encodeCbor(['approved', { text: formatApproved(approved) }]), receipt })
    this.#approved.push(approved)
  }

  /** The policy in force, as `formatPolicy` writes it; undefined before the first. */
  get policy(): string | undefined {
    return this.#policy
  }

  /**
   * Puts a policy in force, durably.
   * @param change - that its approvers signed; null where none had to.
   */
  async setPolicy(policy: string, change: Approved | null, receipt?: MakeReceipt): Promise<void> {
    await this.#append({
      record: encodeCbor(['policy', { policy, change: change && formatApproved(change) }]),
      receipt,
    })
    this.#policy = policy
  }

  /** Every flow's durable state. */
  get flows(): ReadonlyMap<FlowId, FlowState> {
    return this.#durable
  }

  /** The newest receipts that are durable, oldest first. */
  get recentReceipts(): readonly Receipt[] {
    return this.#recent.list()
  }

  get sizeBytes(): number {
    return this.#log.sizeBytes
  }

  get receiptCount(): number {
    return this.#log.receiptCount
  }

  close(): Promise<void> {
    return this.#log.close()
  }

  async #append(entry: Entry & { readonly receipt: MakeReceipt | undefined }): Promise<void> {
    const { receipt: make } = entry
    const startMs = performance.now()
    let signed: Bytes | undefined
    await this.#log.append({ ...entry, ...(make && { receipt: (link) => (signed = make(link)) }) })
    this.onAppend?.((performance.now() - startMs) / 1000)
    if (signed !== undefined) this.#recent.add(signed)
  }
}

export interface Inspected {
  readonly identity: Bytes
  readonly flowCount: number
  readonly flows: ReadonlyMap<FlowId, FlowState>
  /** Oldest first, as they were signed; the last one’s signature is verified, and that each is chained to the one before. */
  readonly receipts: readonly Bytes[]
  /** Migration grants and releases, oldest first, whoever signed them. */
  readonly approved: readonly Approved[]
  /** The policy in force, as `formatPolicy` writes it; undefined before the KMS was first started with one. */
  readonly policy: string | undefined
}

const inspected = (records: readonly Bytes[]): Inspected => {
  const { identity, flows, receipts, approved, policy } = readContents(records)
  return { identity, flowCount: flows.size, flows, receipts, approved, policy }
}

const setAccepted = (flows: Map<FlowId, FlowState>, flow: FlowId): void => {
  const state = flows.get(flow)
  if (state === undefined) throw new KeyriseError(CODE, { detail: 'an acceptance for a flow that it does not know' })
  flows.set(flow, { ...state, staleAccepted: true })
}

const readContents = (records: readonly Bytes[]): Contents => {
  const identity = readIdentity(records[0])
  const contents: Contents = {
    identity,
    flows: new Map(),
    publications: new Map(),
    receipts: [],
    link: firstLink(identity),
    approved: [],
    policy: undefined,
  }
  for (const record of records.slice(1)) {
    const [tag, claimed] = readTagged(record)
    if (tag === 'flow') {
      const [flow, state] = readState(claimed)
      contents.flows.set(flow, state)
    } else if (tag === 'publication') {
      const [flow, publication] = readPublication(claimed)
      contents.publications.set(flow, publication)
    } else if (tag === 'receipt') {
      addReceipt(contents, claimed)
    } else if (tag === 'stale-acceptance') {
      setAccepted(contents.flows, readAcceptance(claimed, contents.identity).flow)
    } else if (tag === 'approved') {
      contents.approved.push(parseApproved(readText(claimed, ['text'], 'text')))
    } else if (tag === 'policy') {
      contents.policy = readText(claimed, ['policy', 'change'], 'policy')
    } else if (tag !== 'start') {
      throw new KeyriseError(CODE, { detail: 'a record of a later version' })
    }
  }
  checkNewest(contents)
  return contents
}

/** Its place in the chain is checked; every signature, by whoever verifies the receipts (check-receipts.ts). */
const addReceipt = (contents: Contents, claimed: unknown): void => {
  const { link } = contents
  const receipt = claimed instanceof Uint8Array ? copyBytes(claimed) : undefined
  const stated = receipt && readLink(receipt)
  const isNext = stated?.sequence === link.sequence && equalPublicBytes(stated.previous, link.previous)
  if (receipt === undefined || !isNext) throw new KeyriseError(CODE, { detail: `receipt ${link.sequence}` })
  contents.receipts.push(receipt)
  contents.link = linkAfter(receipt, link)
}

const readLink = (receipt: Bytes): ReceiptLink | undefined => {
  try {
    return decodeReceiptBody(splitReceipt(receipt).body)
  } catch {
    return undefined
  }
}

/** The signature of the newest receipt holds all before it; the log’s own chain says nothing of who wrote to it. */
const checkNewest = ({ identity, receipts }: Contents): void => {
  const newest = receipts.at(-1)
  if (newest === undefined) return
  const { body, signature } = splitReceipt(newest)
  if (!verifyEd25519(identity, body, signature)) throw new KeyriseError(CODE, { detail: 'the newest receipt' })
}

const readTagged = (record: Uint8Array): [tag: unknown, claimed: unknown] => {
  const value = decodeCbor(record)
  if (!Array.isArray(value) || value.length !== 2) throw new KeyriseError(CODE, { detail: 'a record' })
  return [value[0], value[1]]
}

const readText = (claimed: unknown, keys: readonly string[], field: string): string =>
  new FieldReader(claimed, keys, CODE).text(field, TEXT_LENGTH_MAX)

const readIdentity = (first: Uint8Array | undefined): Bytes => {
  const [tag, claimed] = first === undefined ? [] : readTagged(first)
  if (tag !== 'keyrise/v1/ledger') throw new KeyriseError(CODE, { detail: 'not a ledger of this version' })
  return new FieldReader(claimed, ['identity'], CODE).bytes('identity', 32)
}

const STATE_KEYS = [
  'flow',
  'task',
  'image',
  'svn',
  'signed',
  'predecessors',
  'head',
  'incarnation',
  'destroyed',
  'staleAccepted',
]

const encodeState = (flow: FlowId, { head, signed, predecessors, ...state }: FlowState): Bytes =>
  encodeCbor([
    'flow',
    {
      flow,
      ...state,
      signed: signed && { ...signed },
      predecessors: [...predecessors],
      head: head && { ...head },
    },
  ])

const readState = (claimed: unknown): [FlowId, FlowState] => {
  const f = new FieldReader(claimed, STATE_KEYS, CODE)
  return [
    parseFlowId(f.claimed('flow')),
    {
      task: parseFlowId(f.claimed('task')),
      image: f.bytes('image', 32),
      // Not in ledgers that were written before there were such things.
      svn: f.has('svn') ? f.count('svn') : 0,
      signed: f.has('signed') ? readSigner(f.claimed('signed')) : null,
      predecessors: f.has('predecessors') ? f.list('predecessors', PREDECESSOR_COUNT_MAX, readMeasurement) : [],
      head: readHead(f),
      incarnation: f.count('incarnation'),
      destroyed: f.flag('destroyed'),
      staleAccepted: f.has('staleAccepted') && f.flag('staleAccepted'),
    },
  ]
}

const readSigner = (claimed: unknown): ImageSigner => {
  const f = new FieldReader(claimed, ['signer', 'productId'], CODE)
  return { signer: f.bytes('signer', 32), productId: f.count('productId', PRODUCT_ID_MAX) }
}

const readMeasurement = (claimed: unknown): Bytes =>
  new FieldReader({ measurement: claimed }, ['measurement'], CODE).bytes('measurement', 32)

const readHead = (fields: FieldReader): Head | null => {
  if (!fields.has('head')) return null
  const head = new FieldReader(fields.claimed('head'), ['epoch', 'digest'], CODE)
  return { epoch: head.count('epoch'), digest: head.bytes('digest', 32) }
}

/** Of a ledger of before there were receipts of it. Its signature is checked with each reading. */
const readAcceptance = (claimed: unknown, identity: Bytes): StaleAcceptance => {
  const f = new FieldReader(claimed, ['flow', 'reason', 'timeMs', 'head', 'incarnation', 'signature'], CODE)
  const acceptance = {
    flow: parseFlowId(f.claimed('flow')),
    reason: f.text('reason', REASON_LENGTH_MAX),
    timeMs: f.count('timeMs'),
    head: readHead(f),
    incarnation: f.count('incarnation'),
  }
  const isSigned = verifyEd25519(identity, encodeStaleAcceptance(acceptance), f.bytes('signature', 64))
  return isSigned ? acceptance : f.refuse('signature')
}

const readPublication = (claimed: unknown): [FlowId, Publication] => {
  const f = new FieldReader(claimed, ['flow', 'signingKey', 'values'], CODE)
  const values = f.claimed('values') as Readonly<Record<string, unknown>>
  const fields = new FieldReader(values, Object.keys(values), CODE)
  const read = Object.keys(values).map((name) => [name, fields.bytes(name, 0, 1024)] as const)
  return [parseFlowId(f.claimed('flow')), { signingKey: f.bytes('signingKey', 32), values: Object.fromEntries(read) }]
}
