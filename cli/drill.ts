import { join } from 'node:path'
import { FileLedger, LEDGER_NAME } from '../kms/file-ledger.js'
import type { Keyring } from '../kms/keyring.js'
import type { FlowState } from '../kms/ledger.js'
import type { Policy } from '../kms/policy.js'
import { equalPublicBytes } from '../protocol/bytes.js'
import type { VerifiedObject } from '../protocol/contract.js'
import { x25519PrivateKeyObject } from '../protocol/crypto/curves.js'
import { unwrapHeader } from '../protocol/crypto/envelope.js'
import { x25519Identity, type Identity } from '../protocol/crypto/recipients.js'
import { parseHeader } from '../protocol/age-header.js'
import { isKeyriseError, KeyriseError, type ErrorCode } from '../protocol/errors.js'
import type { FlowId } from '../protocol/names.js'
import type { Store } from '../protocol/ports.js'
import { equalHeads } from '../protocol/session.js'
import { getHeaders } from '../protocol/sealed-pair.js'
import { nodeFileSystem, readWhole } from '../storage/index.js'
import { Rehearsal, type RehearsedImage } from './rehearsal.js'

/** Something that could not be recovered, or would stand on one copy less than it seems. Names and codes only. */
export interface DrillFinding {
  readonly flow: string
  readonly code: ErrorCode
  readonly detail: string
  readonly object?: string
  /** What would be lost with it. */
  readonly entries?: readonly string[]
}

export interface DrillOptions {
  readonly keyring: Keyring
  /** The KMS’s. */
  readonly directory: string
  /** Each copy of the store. */
  readonly copies: readonly Store[]
  /** All of the ledger’s, and all that the store shows, unless told. */
  readonly flows: readonly FlowId[] | undefined
  /** Any image that a flow has, unless told. */
  readonly policy: Policy | undefined
  /** What the flows are to be launched with; each with its own, as the ledger has it, unless told. */
  readonly image: RehearsedImage | undefined
  /** Told how many objects of a flow have been opened. */
  readonly progress: (flow: string, objectCount: number) => void
}

export interface DrillResult {
  readonly flowCount: number
  readonly objectCount: number
  readonly findings: readonly DrillFinding[]
}

/** A ledger is read whole. */
const LEDGER_SIZE_BYTES_MAX = 1024 * 1024 * 1024
/** A flow that goes on while it is looked at drops objects that were still listed a moment ago. */
const LOOK_COUNT_MAX = 4

/** @throws {KeyriseError} ERR_LEDGER_MISSING, ERR_LEDGER_DAMAGED, ERR_STORE_*: there is nothing to rehearse with. */
export const runDrill = async (options: DrillOptions): Promise<DrillResult> => {
  const known = await readFlows(options)
  const unknown = await findUnknown(options, known)
  let [flowCount, objectCount] = [0, 0]
  const findings = unknown.map((flow): DrillFinding => ({
    flow,
    code: 'ERR_FORK',
    detail: 'the store has objects of this flow, the ledger has none: it was rolled back or lost, or is another’s',
  }))
  for (const flow of options.flows ?? known.keys()) {
    const looked = await lookUntilSteady(options, flow)
    flowCount++
    objectCount += looked.objectCount
    findings.push(...looked.findings)
  }
  return { flowCount, objectCount, findings }
}

const readFlows = async ({ directory }: DrillOptions): Promise<ReadonlyMap<FlowId, FlowState>> => {
  const ledger = await FileLedger.inspect(nodeFileSystem, directory)
  if (ledger === undefined) throw new KeyriseError('ERR_LEDGER_MISSING', { detail: directory })
  return ledger.flows
}

/** Flows that the store shows and the ledger has never heard of. */
const findUnknown = async (
  { copies, flows }: DrillOptions,
  known: ReadonlyMap<FlowId, FlowState>,
): Promise<readonly string[]> => {
  const shown = new Set<string>()
  for (const copy of copies) for (const name of await copy.list('')) shown.add(name.slice(0, name.indexOf('/')))
  return [...shown].filter((flow) => !known.has(flow as FlowId) && (flows ?? [flow]).some((asked) => asked === flow))
}

interface Looked {
  readonly objectCount: number
  readonly findings: readonly DrillFinding[]
}

/** Looks again while the flow goes on: what is found each time anew is what it dropped meanwhile, and no loss. */
const lookUntilSteady = async (options: DrillOptions, flow: FlowId): Promise<Looked> => {
  let before: Looked | undefined
  for (let count = 1; ; count++) {
    const state = (await readFlows(options)).get(flow)
    const looked = await look(options, flow, state)
    const findings = looked.findings.filter(
      (finding) => before === undefined || before.findings.some((known) => isSame(known, finding)),
    )
    const now = (await readFlows(options)).get(flow)
    if (findings.length === 0 || count === LOOK_COUNT_MAX || !hasMoved(state, now)) return { ...looked, findings }
    before = { ...looked, findings }
  }
}

const isSame = (a: DrillFinding, b: DrillFinding): boolean => a.code === b.code && a.object === b.object

const hasMoved = (a: FlowState | undefined, b: FlowState | undefined): boolean =>
  a?.incarnation !== b?.incarnation || !equalHeads(a?.head ?? null, b?.head ?? null)

const look = async (options: DrillOptions, flow: FlowId, state: FlowState | undefined): Promise<Looked> => {
  if (state === undefined)
    return { objectCount: 0, findings: [{ flow, code: 'ERR_FORK', detail: 'the ledger does not know this flow' }] }
  // Nothing was ever acknowledged, or all of it was given up.
  if (state.head === null || state.destroyed) return { objectCount: 0, findings: [] }
  const { keyring, directory, copies } = options
  const image = options.image ?? rememberedImage(state)
  const policy = options.policy ?? { platforms: [], images: [image], allowDebug: image.debug }
  const ledger = await readWhole(nodeFileSystem, join(directory, LEDGER_NAME), LEDGER_SIZE_BYTES_MAX)
  if (ledger === undefined) throw new KeyriseError('ERR_LEDGER_MISSING', { detail: directory })
  await using rehearsal = await Rehearsal.start({ keyring, ledger, policy, copies })
  const bad = new Set<string>()
  const findings: DrillFinding[] = []
  let objectCount = 0
  try {
    for await (const one of rehearsal.recover(flow, state, image, (object) => bad.add(object))) {
      objectCount++
      options.progress(flow, objectCount)
      findings.push(...(await judge(options, flow, one)))
    }
  } catch (error) {
    if (!isKeyriseError(error)) throw error
    findings.push({ flow, code: error.code, detail: error.message })
    for (const object of bad)
      if (await lacksKey(options, flow, object))
        findings.push({ flow, object, code: 'ERR_KEY_UNKNOWN', detail: withoutKey(keyring) })
  }
  return { objectCount, findings }
}

/** The image that has the flow, as far as the ledger knows it. */
const rememberedImage = ({ image, svn, signed }: FlowState): RehearsedImage => ({
  name: 'unknown',
  svn,
  debug: false,
  measurement: image,
  signed,
})

const judge = async (
  options: DrillOptions,
  flow: FlowId,
  { object, status, copies, entries }: VerifiedObject,
): Promise<readonly DrillFinding[]> => {
  if (copies.every((copy) => copy === 'intact')) return []
  const isServed = status === 'intact' || status === 'repaired'
  // A rehearsal repairs nothing: what it would have written again is what this copy lacks.
  const lacking = copies.flatMap((copy, index) =>
    copy === 'intact'
      ? []
      : [`copy ${index + 1} of ${copies.length} ${copy === 'repaired' ? 'lacks it' : `is ${copy}`}`],
  )
  if (isServed) return [{ flow, object, code: 'ERR_DIGEST_MISMATCH', detail: lacking.join(', ') }]
  if (await lacksKey(options, flow, object))
    return [{ flow, object, entries, code: 'ERR_KEY_UNKNOWN', detail: withoutKey(options.keyring) }]
  const code = ({ missing: 'ERR_STATE_LOST', unreadable: 'ERR_STORE_IO', damaged: 'ERR_DIGEST_MISMATCH' } as const)[
    status
  ]
  return [{ flow, object, entries, code, detail: copies.length === 1 ? status : lacking.join(', ') }]
}

const withoutKey = ({ rootKeys }: Keyring): string =>
  `its header opens with no key version of the keyring, which has ${rootKeys.map(({ key }) => key).join(', ')}`

/** True where headers are there and well formed, and no key of the keyring is among their recipients. */
const lacksKey = async ({ keyring, copies }: DrillOptions, flow: FlowId, object: string): Promise<boolean> => {
  if (object.startsWith('epoch-')) return false
  const identities = keyring.rootKeys.map(({ privateKey }) => x25519Identity(x25519PrivateKeyObject(privateKey)))
  const opened: boolean[] = []
  for (const copy of copies) {
    const headers = await getHeaders(copy, `${flow}/${object}`).catch(() => [])
    opened.push(...headers.map(({ bytes }) => isForOneOf(bytes, identities)))
  }
  return opened.length > 0 && !opened.includes(true)
}

/** False only where the header says so: damage of another kind is no lack of a key. */
const isForOneOf = (header: Uint8Array, identities: readonly Identity[]): boolean => {
  try {
    unwrapHeader(parseHeader(header), identities)[Symbol.dispose]()
    return true
  } catch (error) {
    return !isKeyriseError(error, 'ERR_IDENTITY_MISMATCH')
  }
}

/** What a copy of the keyring lacks, where it opens; why it does not, where it does not. */
export const judgeBackup = async (
  keyring: Keyring,
  path: string,
  open: () => Promise<Keyring> | Keyring,
): Promise<DrillFinding[]> => {
  try {
    using backup = await open()
    if (!equalPublicBytes(backup.identity, keyring.identity))
      return [{ flow: '', object: path, code: 'ERR_KEYRING_INVALID', detail: 'a keyring of another KMS' }]
    const held = new Set(backup.rootKeys.map(({ key }) => key))
    const lacking = keyring.rootKeys.map(({ key }) => key).filter((key) => !held.has(key))
    if (lacking.length === 0) return []
    return [{ flow: '', object: path, code: 'ERR_KEY_UNKNOWN', detail: `a copy made before ${lacking.join(', ')}` }]
  } catch (error) {
    if (!isKeyriseError(error)) throw error
    return [{ flow: '', object: path, code: error.code, detail: error.message }]
  }
}
