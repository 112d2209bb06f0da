import { copyBytes } from '../protocol/bytes.js'
import { RUNTIME_OCALLS } from '../protocol/calls.js'
import { encodeConfiguration, type Isolation } from '../protocol/configuration.js'
import type { EcallsOf, FoundStatus, OcallsOf, PlainCallOptions, SwitchlessOf } from '../protocol/contract.js'
import type { DeclaredEcall } from '../protocol/declared-calls.js'
import { KeyriseError } from '../protocol/errors.js'
import { MESSAGE_SIZE_BYTES_MAX } from '../protocol/limits.js'
import { parseFlowId, parseStoreId, type FlowId } from '../protocol/names.js'
import type { Clock, KmsLink, Store } from '../protocol/ports.js'
import type { Image } from '../platform/image.js'
import type { Platform } from '../platform/platform.js'
import { isSource } from '../protocol/stream-sender.js'
import { nodeClock } from '../storage/node-clock.js'
import { printOcall, printOutput } from './debug-output.js'
import { ocallTable } from './ocalls.js'
import { ServedOcalls } from './served-ocalls.js'
import {
  Supervisor,
  type EnclaveEvent,
  type EnclaveEventDetail,
  type EnclaveState,
  type LaunchedInstance,
  type SupervisorLimits,
  type ItemOptions,
} from './supervisor.js'

export interface LaunchOptionsBase<Definition> {
  readonly image: Image<Definition>
  readonly platform: Platform
  /** The second environment: where the sealed state lies. */
  readonly store: Store
  readonly kms: KmsLink
  /**
   * The id by which the KMS’s operator registered this store, or a mirror of it: the KMS then reads headers there itself, and this host
   * relays only those that it does not find. By default this host relays all of them.
   */
  readonly kmsStore?: string
  /** One party's part in one task: the name of the state. */
  readonly flow: string
  /** Names the task that several flows share; a flow is a task of its own by default. */
  readonly task?: string
  /**
   * Called apart from everything else, in order. What it throws is an uncaught exception. Without it, the output of a debug
   * image goes to standard error.
   */
  readonly onEvent?: (event: EnclaveEvent) => void
  readonly clock?: Clock
  readonly limits?: Partial<LaunchLimits>
  /**
   * What the enclave runs in: a worker of this process by default, or a process of its own, which other processes of the user
   * and native code in this one cannot read. docs/threat-model.md says what each stops. Evidence covers it.
   */
  readonly isolation?: Isolation
  /**
   * Keeps another instance of the image running beside the one that serves: started, hardened and waiting, without a key and
   * unattested. When the one that serves dies, the spare recovers at once. It costs an idle worker or process. False unless told.
   */
  readonly spare?: boolean
}

export interface LaunchLimits extends SupervisorLimits {
  /** The most that one call, or its answer, may carry. The enclave enforces it; evidence covers it. */
  readonly messageSizeBytesMax: number
}

/** What `launch` takes; `ocalls` exactly where the image declares some. */
export type LaunchOptions<Definition> = LaunchOptionsBase<Definition> &
  (DeclaresOcalls<Definition> extends true
    ? { readonly ocalls: OcallsOf<Definition> }
    : { readonly ocalls?: UntypedOcalls })

/** An image read from a file has no types. */
type UntypedEcalls = Readonly<Record<string, (input?: unknown, options?: PlainCallOptions) => Promise<unknown>>>
type UntypedOcalls = Readonly<Record<string, (input: never) => unknown>>
type DeclaresOcalls<Definition> = unknown extends Definition
  ? false
  : keyof OcallsOf<Definition> extends never
    ? false
    : true
type Switchless<Definition> = unknown extends Definition
  ? Readonly<Record<string, (input?: unknown) => unknown>>
  : SwitchlessOf<Definition>
type Ecalls<Definition> = unknown extends Definition ? UntypedEcalls : EcallsOf<Definition>

/** A running enclave, which is launched again whenever it dies. */
export interface EnclaveHandle<Definition> extends AsyncDisposable {
  /**
   * Its ECALLs. Each settles: with its answer; with the code that it was refused with; with ERR_ENCLAVE_LOST when the enclave
   * died meanwhile, the outcome then being unknown; with ERR_DEADLINE. A call made while the enclave is being relaunched
   * waits for it, and was not made when that fails.
   */
  readonly ecalls: Ecalls<Definition>
  /**
   * Those of its ECALLs that are declared switchless, as calls that block this thread until they are answered: for calls so
   * short that waking another thread would take longer. They throw what a promise would reject with, and ERR_ENCLAVE_LOST
   * also where the enclave is being relaunched.
   */
  readonly switchless: Switchless<Definition>
  readonly state: EnclaveState
  /** Lets the enclave wipe its secrets, then ends it. Safe to repeat. */
  close(): Promise<void>
}

export const LAUNCH_LIMITS: LaunchLimits = {
  messageSizeBytesMax: MESSAGE_SIZE_BYTES_MAX,
  launchDeadlineMs: 60_000,
  callDeadlineMs: 300_000,
  relaunchDeadlineMs: 60_000,
  backoffMinMs: 100,
  backoffMaxMs: 10_000,
}

/**
 * Launches an enclave, which recovers its flow's state before it serves, and keeps it alive until it is closed.
 * @throws {KeyriseError} why the first launch failed: ERR_KMS_UNREACHABLE, ERR_POLICY_DENIED, ERR_ROLLBACK, ERR_STORE_*, …
 */
export const launch = async <Definition>(options: LaunchOptions<Definition>): Promise<EnclaveHandle<Definition>> => {
  const flow = parseFlowId(options.flow)
  const limits = { ...LAUNCH_LIMITS, ...options.limits }
  const supervisor: Supervisor = new Supervisor({
    launchInstance: instanceLauncher(options, flow, limits, (event) => {
      supervisor.report(event)
    }),
    keepsSpare: options.spare ?? false,
    clock: options.clock ?? nodeClock,
    limits,
    onEvent: options.onEvent ?? printOutput(options.image.manifest.name),
  })
  await supervisor.start()
  const close = (): Promise<void> => supervisor.close()
  return {
    ecalls: stubs(options.image.manifest.ecalls, supervisor) as Ecalls<Definition>,
    switchless: switchlessStubs(options.image.manifest.ecalls, supervisor) as Switchless<Definition>,
    get state() {
      return supervisor.state
    },
    close,
    [Symbol.asyncDispose]: close,
  }
}

/** Checks what never changes between launches, once; then starts an instance whose OCALLs are served, each time. */
const instanceLauncher = (
  options: LaunchOptionsBase<unknown> & { readonly ocalls?: unknown },
  flow: FlowId,
  limits: LaunchLimits,
  report: (event: EnclaveEventDetail) => void,
): ((standby: boolean) => LaunchedInstance) => {
  const { image, platform, store, kms } = options
  const authors = (options.ocalls ?? {}) as Readonly<Record<string, (input: never) => unknown>>
  const missing = namesOf(image.manifest.ocalls).filter((name) => !Object.hasOwn(authors, name))
  if (missing.length > 0) throw new KeyriseError('ERR_OCALL_UNKNOWN', { detail: missing.join(', ') })
  const print = printOcall((level, text) => report({ type: 'output', level, text }))
  const found = (object: string, status: FoundStatus): void => report({ type: 'found', object, status })
  const table = new Map([...ocallTable({ flow, store, kms, authors, found }), ...(image.manifest.debug ? [print] : [])])
  const yielding = new Set(namesOf(image.manifest.ocalls.filter(({ yields }) => yields)))
  const task = parseFlowId(options.task ?? flow)
  const { isolation = 'worker' } = options
  const { messageSizeBytesMax } = limits
  const kmsStore = options.kmsStore === undefined ? {} : { kmsStore: parseStoreId(options.kmsStore) }
  const configured = { kmsIdentity: copyBytes(kms.identity), ...kmsStore, messageSizeBytesMax, isolation }
  const configuration = encodeConfiguration(configured)
  const standbyConfiguration = encodeConfiguration({ ...configured, standby: true })
  return (standby) => {
    const instance = platform.launch(image, {
      configuration: standby ? standbyConfiguration : configuration,
      flow,
      task,
      isolation,
    })
    let start = (): void => undefined
    const started = new Promise<void>((resolve) => (start = resolve))
    const waits = (): Promise<void> => {
      report({ type: 'spare' })
      return started
    }
    const failed = (name: string, error: unknown): void => report({ type: 'ocall-failed', name, error })
    const own = standby ? new Map([...table, [RUNTIME_OCALLS.start, waits] as const]) : table
    const served = new ServedOcalls({ port: instance.ocalls, table: own, yielding, failed })
    void instance.exited.then(() => served.end())
    return { instance, start }
  }
}

const namesOf = (declared: readonly { readonly name: string }[]): string[] => declared.map(({ name }) => name)

const stubs = (ecalls: readonly DeclaredEcall[], supervisor: Supervisor): object => {
  const table: Record<string, unknown> = Object.create(null) as Record<string, never>
  for (const ecall of ecalls) table[ecall.name] = stub(ecall, supervisor)
  return Object.freeze(table)
}

/** The function that makes an ECALL: which one, its declaration says. */
const stub = ({ name, receives, yields }: DeclaredEcall, supervisor: Supervisor): unknown => {
  if (!receives && !yields)
    return (input?: unknown, options?: PlainCallOptions) => supervisor.call(name, input, options)
  const call = yields
    ? (input: unknown, options: ItemOptions) => supervisor.stream(name, input, options)
    : (input: unknown, options: ItemOptions) => supervisor.callWithItems(name, input, options)
  return (input?: unknown, options: ItemOptions = {}) => {
    checkItems(name, receives, options)
    return call(input, options)
  }
}

/** What a compiler says to those who have one. */
const checkItems = (name: string, receives: boolean, options: ItemOptions): void => {
  if (receives !== isSource(options.items))
    throw new TypeError(`The ECALL ${name} ${receives ? 'needs' : 'has no'} items to receive`)
  if ('idempotencyKey' in options) throw new TypeError(`The ECALL ${name} streams: it takes no idempotency key`)
}

const switchlessStubs = (ecalls: readonly DeclaredEcall[], supervisor: Supervisor): object => {
  const table = Object.create(null) as Record<string, (input?: unknown) => unknown>
  for (const { name, switchless } of ecalls)
    if (switchless) table[name] = (input) => supervisor.callSwitchless(name, input)
  return Object.freeze(table)
}
