import { serialize } from 'node:v8'
import { copyBytes } from '../protocol/bytes.js'
import { RUNTIME_OCALLS } from '../protocol/calls.js'
import { ed25519Signer } from '../protocol/crypto/keys.js'
import { Secret } from '../protocol/crypto/secret.js'
import type { EnclaveDefinition } from '../protocol/contract.js'
import { KeyriseError } from '../protocol/errors.js'
import { LAUNCH_LIMITS } from '../host/launch.js'
import { openKms, type OpenKms } from '../kms/open-kms.js'
import { hasKeyring, readKeyringFile } from '../kms/custody-files.js'
import { createKms, prepareDirectory } from '../kms/place.js'
import { InlineUnsealer } from '../kms/unseal.js'
import type { Port, Store } from '../protocol/ports.js'
import { DirectoryStore } from '../storage/index.js'
import type { OpenedFlow } from '../enclave/flow.js'
import type { DiskImage } from './disk.js'
import { driveClock, oneTurn } from './drive-clock.js'
import { faultyPortPair, type Boundary, type BoundaryFault, type BoundaryMessage } from './faulty-port.js'
import { launchInProcess, type InProcessEnclave } from './in-process.js'
import type { InProcessKms } from './in-process-kms.js'
import type { LeakWatch } from './leak-watch.js'
import { MemoryFileSystem, type FileFault } from './memory-file-system.js'
import { keysOfKeyring } from './open-custody.js'
import { watchCrypto } from './pending-crypto.js'
import type { FlowScenario, Party, Scenario } from './scenario.js'
import type { KnownSecret } from './scan.js'
import { readEntries } from './read-entries.js'
import { reachedStore } from './reached-store.js'
import { SeededRandom } from './seeded-random.js'
import { checkReceipts } from './simulated-custody.js'
import { checkAside } from './simulated-rekey.js'
import { SimulatedClock } from './simulated-clock.js'
import { PASSPHRASE, PLACE, simulatedOperator } from './simulated-operator.js'
import { SimulatedWire, unreachable, type MessageFault } from './simulated-wire.js'
import { Succession } from './succession.js'

/** `host`: stores and enclaves. `kms`: keyring and ledger. */
export type Machine = 'host' | 'kms'
export type Disks = Readonly<Record<Machine, DiskImage>>

/** A file operation of a machine, a message between the two, what a KMS asks of a store, or a message between a host and its enclave. */
export interface WorldOperation {
  readonly on: Machine | 'request' | 'reply' | 'store' | Boundary
  /** The same in every run: what is done, and to which file. */
  readonly name: string
}

export interface WorldOptions {
  readonly scenario: Scenario
  /** What the disks hold at first; nothing unless told. */
  readonly disks?: Disks
  /** Told of each operation as it comes; decides what becomes of it. */
  readonly fault?: (operation: WorldOperation) => FileFault | MessageFault | BoundaryFault | undefined
  /** Told of each operation that has happened. */
  readonly onDone?: (operation: WorldOperation) => void
  readonly leaks?: LeakWatch
  /** Told of each key that a KMS holds which starts, and of its passphrase. They come from the seed: the same in every run. */
  readonly onKey?: (key: KnownSecret) => void
}

/** One flow’s enclave on the host that is on. */
interface Running {
  readonly handle: InProcessEnclave<EnclaveDefinition>
  /** Of each instance, the newest last. */
  readonly opened: OpenedFlow[]
}

const STORE = '/store'
/** The smallest that scrypt has: what is tried here is not the passphrase. */
const LOG_N = 1
/** After every deadline of a call, either way. */
const DELAY_MS = 10 * 60 * 1000
const SEARCHED_ELSEWHERE = [RUNTIME_OCALLS.storePut, RUNTIME_OCALLS.kmsExchange, RUNTIME_OCALLS.storeCommit].map(
  (name) => `call ${name}`,
)
/**
 * A host and a KMS with simulated disks, clock and wire, in this thread: the real store, supervisor, gate, flow, recovery, service,
 * ledger and keyring on top of them. Either machine can be switched off and on again, at any operation.
 */
export class SimulatedWorld {
  readonly clock = new SimulatedClock(Date.UTC(2025, 0, 1))
  readonly #o: WorldOptions
  readonly #disks: Readonly<Record<Machine, MemoryFileSystem>>
  readonly #isOn: Record<Machine, boolean> = { host: true, kms: true }
  readonly #platform = ed25519Signer(Secret.take(new SeededRandom('platform').fill(new Uint8Array(32))))
  readonly #succession: Succession
  readonly #running = new Map<string, Running>()
  readonly #opened: OpenedFlow[] = []
  #kms: OpenKms | undefined
  /** Flows whose newer image is launched. */
  readonly #succeeded = new Set<string>()
  #store: DirectoryStore
  readonly #wire: SimulatedWire
  #startCount = 0
  /** How many operations and messages there were, in all. */
  #eventCount = 0

  constructor(options: WorldOptions) {
    watchCrypto()
    this.#o = options
    this.#succession = new Succession(options.scenario)
    this.#disks = { host: this.#newDisk('host'), kms: this.#newDisk('kms') }
    this.#store = new DirectoryStore(STORE, this.#disks.host)
    this.#wire = new SimulatedWire({
      ...options,
      kms: () => this.#kms,
      onPosted: () => this.#eventCount++,
      stopKms: () => this.stop('kms'),
    })
  }

  disk(machine: Machine): MemoryFileSystem {
    return this.#disks[machine]
  }

  isOn(machine: Machine): boolean {
    return this.#isOn[machine]
  }

  /** Opens the KMS that the disk holds; makes one where it holds none. @throws {KeyriseError} */
  async startKms(): Promise<void> {
    const fs = this.#disks.kms
    using passphrase = Secret.take(copyBytes(PASSPHRASE))
    // What seals a keyring in the recorded run, and is searched for in all others, may be drawn for no nonce of theirs.
    const run = this.#o.onKey === undefined ? 'kms' : 'recorded kms'
    const random = new SeededRandom(`${run} ${String(++this.#startCount)}`)
    const options = { place: PLACE, passphrase, fs, random }
    await prepareDirectory(fs, '/kms')
    await prepareDirectory(fs, '/custody')
    await checkReceipts({ fs, place: PLACE })
    await checkAside({ fs, passphrase, clock: this.clock })
    // Keys of their own: what a KMS draws later, nonces say, is drawn again by the next that starts.
    if (!(await hasKeyring(PLACE, fs)))
      await createKms({ ...options, random: new SeededRandom('keyring'), clock: this.clock, logN: LOG_N })
    const kms = await openKms({
      ...options,
      policy: this.#succession.policy(this.#platform.publicKey),
      clock: this.clock,
      stores: new Map([['host', this.#storeForKms()]]),
      startUnsealer: (keys) => Promise.resolve(new InlineUnsealer(keys)),
    })
    this.#kms = kms
    for (const approved of this.#succession.grants(kms.identity)) await kms.approve(approved)
    await this.#tellKeys()
  }

  /** Launches a flow’s enclave, which recovers first. @throws {KeyriseError} why it does not start. */
  async launch(flow: string): Promise<void> {
    const { enclave: first, successor, ocalls, task } = this.scenario(flow)
    const enclave = this.#succeeded.has(flow) && successor !== undefined ? successor.enclave : first
    const opened: OpenedFlow[] = []
    const options = {
      flow,
      store: this.#store,
      kms: this.#link(),
      clock: this.clock,
      limits: LAUNCH_LIMITS,
      onEvent: () => undefined,
      onError: () => undefined,
      onOpened: (each: OpenedFlow) => {
        opened.push(each)
        this.#opened.push(each)
      },
      openPorts: (on: Boundary, kill: () => void) => this.#openPorts(flow, on, kill),
      ...(ocalls === undefined ? {} : { ocalls }),
      ...(task === undefined ? {} : { task }),
    }
    const handle = await launchInProcess(enclave, options as Parameters<typeof launchInProcess>[1])
    this.#running.set(flow, { handle, opened })
  }

  /** From here on it is the newer image of the flow that is launched. */
  succeed(flow: string): void {
    this.#succeeded.add(flow)
  }

  /** Ends the flow’s enclave and launches the newer image in its place. @throws {KeyriseError} why that does not start. */
  async replace(flow: string): Promise<void> {
    await this.#get(flow).handle.close()
    this.succeed(flow)
    await this.launch(flow)
  }

  party(flow: string): Party<EnclaveDefinition> {
    const { handle } = this.#get(flow)
    return { ecalls: handle.ecalls, operator: this.#operator, crash: () => handle.crash() }
  }

  /** Of the newest instance. */
  opened(flow: string): OpenedFlow {
    return this.#get(flow).opened.at(-1) as OpenedFlow
  }

  /** The flow’s state as its scenario compares it. */
  async observe(flow: string): Promise<string> {
    const { observe } = this.scenario(flow)
    const observed = observe === undefined ? await readEntries(this.opened(flow)) : await observe(this.party(flow))
    return JSON.stringify(observed ?? null)
  }

  scenario(flow: string): FlowScenario<EnclaveDefinition> {
    return this.#o.scenario.flows[flow] as FlowScenario<EnclaveDefinition>
  }

  /** Switches a machine off: nothing of it happens any more. */
  stop(machine: Machine): void {
    if (!this.#isOn[machine]) return
    this.#isOn[machine] = false
    this.#disks[machine].stop()
    if (machine === 'kms') this.#kms = undefined
    else for (const { handle } of this.#running.values()) void handle.crash().then(() => handle.close())
  }

  /** Switches it on again, with what `survives` of its disk. Nothing runs on it yet. */
  restart(machine: Machine, survives?: (index: number) => boolean): void {
    this.stop(machine)
    this.#isOn[machine] = true
    this.#disks[machine].restart(survives)
    if (machine === 'kms') return
    this.#running.clear()
    this.#store = new DirectoryStore(STORE, this.#disks.host)
  }

  /**
   * Waits for `work`, and moves the clock to its next timer whenever all has come to rest.
   * @param patienceMs - of the simulated clock.
   * @throws what `work` rejects with; Stuck where nothing is left that could settle it, or the patience is over.
   */
  drive<T>(work: Promise<T>, patienceMs?: number): Promise<T> {
    return driveClock(work, { clock: this.clock, eventCount: () => this.#eventCount, patienceMs })
  }

  /** Ends all, and zero-fills what it knows of. */
  async end(): Promise<void> {
    for (const { handle } of this.#running.values()) await this.drive(handle.close())
    for (const opened of this.#opened) opened.wipe()
    const kms = this.#kms
    this.#kms = undefined
    await kms?.close()
    this.#platform[Symbol.dispose]()
    this.#succession[Symbol.dispose]()
  }

  readonly #operator = simulatedOperator({
    kms: () => this.#kms,
    fs: () => this.#disks.kms,
    store: () => this.#store,
    clock: this.clock,
    nextRandom: (use) => new SeededRandom(`${use} ${String(++this.#startCount)}`),
    startAgain: async () => {
      await this.#kms?.close()
      this.#kms = undefined
      await this.startKms()
    },
    onKeys: () => this.#tellKeys(),
  })

  async #tellKeys(): Promise<void> {
    const { onKey } = this.#o
    if (onKey === undefined) return
    keysOfKeyring(await readKeyringFile({ place: PLACE, fs: this.#disks.kms }), PASSPHRASE).forEach(onKey)
  }

  /** The host’s, as the KMS that starts now has it. */
  #storeForKms(): Store {
    const disk = this.#disks.kms
    const boot = disk.bootCount
    return reachedStore({
      store: () => this.#store,
      isOn: () => this.#isOn.kms && disk.bootCount === boot,
      onCall: (name) => {
        this.#eventCount++
        // The clock may jump just then; what else can fail, fails on the store's disk.
        this.#o.fault?.({ on: 'store', name })
        this.#o.onDone?.({ on: 'store', name })
      },
    })
  }

  #get(flow: string): Running {
    const running = this.#running.get(flow)
    if (running === undefined) throw new KeyriseError('ERR_ENCLAVE_CLOSED')
    return running
  }

  #newDisk(machine: Machine): MemoryFileSystem {
    const { disks, fault, onDone, leaks } = this.#o
    const operationOf = (kind: string, path: string): WorldOperation => ({
      on: machine,
      name: operationName(kind, path),
    })
    return new MemoryFileSystem(
      ({ kind, path, bytes }) => {
        this.#eventCount++
        if (bytes !== undefined) leaks?.search(`a file of the ${machine}: ${path}`, bytes)
        const decided = fault?.(operationOf(kind, path)) as FileFault | undefined
        // Once the operation has failed by it, or happened.
        if (decided === 'stop-before' || decided === 'stop-after') queueMicrotask(() => this.stop(machine))
        return decided
      },
      {
        ...(disks === undefined ? {} : { image: disks[machine] }),
        wait: oneTurn,
        onDone: ({ kind, path }) => onDone?.(operationOf(kind, path)),
      },
    )
  }

  /** Between the host and an enclave of the flow. */
  #openPorts(flow: string, on: Boundary, cut: () => void): [Port, Port] {
    const { fault, onDone, leaks } = this.#o
    const operationOf = ({ name }: BoundaryMessage): WorldOperation => ({ on, name: `${flow} ${name}` })
    return faultyPortPair({
      on,
      fault: (posted) => {
        this.#eventCount++
        // What is put into the store, or sent to the KMS, is searched there.
        if (on === 'ocall' && posted.name.startsWith('call ') && !SEARCHED_ELSEWHERE.includes(posted.name))
          leaks?.search(`an OCALL: ${posted.name}`, serialize(posted.message))
        return fault?.(operationOf(posted)) as BoundaryFault | undefined
      },
      onDone: (posted) => onDone?.(operationOf(posted)),
      delay: (hand) => this.clock.timer(DELAY_MS, hand),
      cut,
    })
  }

  /** The way from one host, as long as it is on, to whatever KMS is on. */
  #link(): InProcessKms {
    const disk = this.#disks.host
    const boot = disk.bootCount
    const identity = this.#kms?.identity
    if (identity === undefined) throw unreachable()
    const close = (): Promise<void> => Promise.resolve()
    return {
      identity,
      platform: this.#platform,
      // The policy lists all images of the scenario.
      allow: () => undefined,
      exchange: (frame) => {
        if (!this.#isOn.host || disk.bootCount !== boot) return new Promise(() => undefined)
        return this.#wire.exchange(copyBytes(frame))
      },
      close,
      [Symbol.asyncDispose]: close,
    }
  }
}

/** Temporary files are named after a process and a count of stores. */
const operationName = (kind: string, path: string): string => `${kind} ${path.replaceAll(/\.\d+-\d+\.tmp/g, '.tmp')}`
