import { serialize } from 'node:v8'
import { copyBytes, toHex } from '../protocol/bytes.js'
import { RUNTIME_OCALLS } from '../protocol/calls.js'
import { ed25519Signer } from '../protocol/crypto/keys.js'
import { Secret } from '../protocol/crypto/secret.js'
import type { EnclaveDefinition } from '../protocol/contract.js'
import { KeyriseError } from '../protocol/errors.js'
import { LAUNCH_LIMITS } from '../host/launch.js'
import { openKms, type OpenKms } from '../kms/open-kms.js'
import { createKms, hasKeyring, openKeyring, prepareDirectory, readKeyringFile } from '../kms/place.js'
import { rotateKeyring, withNextKey } from '../kms/change-keys.js'
import { restoreKms } from '../kms/place.js'
import { rewrapPairs } from '../kms/rewrap.js'
import { InlineUnsealer } from '../kms/unseal.js'
import { withChange } from '../kms/root-keys.js'
import type { Port, Store } from '../protocol/ports.js'
import { DirectoryStore, publish } from '../storage/index.js'
import type { OpenedFlow } from '../enclave/flow.js'
import type { DiskImage } from './disk.js'
import { faultyPortPair, type Boundary, type BoundaryFault, type BoundaryMessage } from './faulty-port.js'
import { launchInProcess, type InProcessEnclave } from './in-process.js'
import type { InProcessKms } from './in-process-kms.js'
import type { LeakWatch } from './leak-watch.js'
import { MemoryFileSystem, type FileFault } from './memory-file-system.js'
import { keysOfKeyring } from './open-custody.js'
import { pendingCryptoCount, watchCrypto } from './pending-crypto.js'
import type { FlowScenario, Operator, Party, Scenario } from './scenario.js'
import type { KnownSecret } from './scan.js'
import { reachedStore } from './reached-store.js'
import { SeededRandom } from './seeded-random.js'
import { SimulatedClock } from './simulated-clock.js'
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

/**
 * What becomes of a message. `replay`: an earlier one comes in its place. `late`: it comes after the next one. `never`: until its deadline has passed.
 */
export type MessageFault = 'lose' | 'double' | 'replay' | 'late' | 'damage' | 'never' | 'kms-stops'

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
const PLACE = { directory: '/kms', custody: '/custody/keyring.age' } as const
/** The smallest that scrypt has: what is tried here is not the passphrase. */
const LOG_N = 1
/** After every deadline of a call, either way. */
const DELAY_MS = 10 * 60 * 1000
/** Messages that follow from one another take a turn of the event loop each. */
const REST_TURN_COUNT = 24
const SEARCHED_ELSEWHERE = [RUNTIME_OCALLS.storePut, RUNTIME_OCALLS.kmsExchange].map((name) => `call ${name}`)
const PASSPHRASE = new TextEncoder().encode('a passphrase that no file holds')

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
  /** The last request, for a replay; and requests that come after the next. */
  #earlier: Uint8Array | undefined
  readonly #late: Uint8Array[] = []
  #kms: OpenKms | undefined
  /** Flows whose newer image is launched. */
  readonly #succeeded = new Set<string>()
  #store: DirectoryStore
  #startCount = 0
  /** How many operations and messages there were, in all. */
  #eventCount = 0

  constructor(options: WorldOptions) {
    watchCrypto()
    this.#o = options
    this.#succession = new Succession(options.scenario)
    this.#disks = { host: this.#newDisk('host'), kms: this.#newDisk('kms') }
    this.#store = new DirectoryStore(STORE, this.#disks.host)
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
  async drive<T>(work: Promise<T>, patienceMs = Infinity): Promise<T> {
    let passedMs = 0
    const state = { isSettled: false }
    const settled = (): void => void (state.isSettled = true)
    work.then(settled, settled)
    for (let restedCount = 0, eventCount = 0; !state.isSettled;) {
      await oneTurn()
      const isBusy = pendingCryptoCount() > 0 || eventCount !== this.#eventCount
      eventCount = this.#eventCount
      restedCount = isBusy ? 0 : restedCount + 1
      if (restedCount <= REST_TURN_COUNT) continue
      const [nextMs] = this.clock.pendingMs
      if (nextMs === undefined || (passedMs += nextMs) > patienceMs) throw new Stuck()
      await this.clock.advance(nextMs)
      restedCount = 0
    }
    return work
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

  readonly #operator: Operator = {
    restart: async () => {
      await this.#kms?.close()
      this.#kms = undefined
      await this.startKms()
    },
    rotate: async () => {
      using passphrase = Secret.take(copyBytes(PASSPHRASE))
      const random = new SeededRandom(`rotation ${String(++this.#startCount)}`)
      await rotateKeyring({ place: PLACE, passphrase, fs: this.#disks.kms, random })
      await this.#operator.restart()
    },
    rewrap: async () => {
      using passphrase = Secret.take(copyBytes(PASSPHRASE))
      using keyring = await openKeyring({ place: PLACE, passphrase, fs: this.#disks.kms })
      const random = new SeededRandom(`rewrap ${String(++this.#startCount)}`)
      for await (const pair of rewrapPairs({ keyring, store: this.#store, prefix: '', random }))
        if (pair.status === 'failed') throw pair.error
    },
    restore: async () => {
      using passphrase = Secret.take(copyBytes(PASSPHRASE))
      const fs = this.#disks.kms
      await publish(fs, '/custody', 'keyring.age', await readKeyringFile({ place: PLACE, fs }))
      await restoreKms({ place: PLACE, passphrase, fs, newLedger: false })
      await this.#operator.restart()
    },
    rotateOnline: async () => {
      using passphrase = Secret.take(copyBytes(PASSPHRASE))
      const random = new SeededRandom(`rotation ${String(++this.#startCount)}`)
      const kms = this.#runningKms()
      await withNextKey({}, random, (change) => kms.changeKeys(passphrase, change))
      await this.#tellKeys()
    },
    retire: async () => {
      using passphrase = Secret.take(copyBytes(PASSPHRASE))
      const kms = this.#runningKms()
      kms.rewraps.start()
      while (kms.rewraps.progress.state === 'running') {
        if (this.#kms !== kms) throw unreachable()
        await oneTurn()
      }
      const [, ...older] = kms.rootKeys
      for (const { key, state } of older) {
        for await (const { name } of kms.dependentsOf(key)) throw new KeyriseError('ERR_KEY_STATE', { detail: name })
        if (state !== 'disabled') await kms.changeKeys(passphrase, (keys) => withChange(keys, key, { kind: 'disable' }))
      }
    },
  }

  #runningKms(): OpenKms {
    if (this.#kms === undefined) throw unreachable()
    return this.#kms
  }

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
        return this.#exchange(copyBytes(frame))
      },
      close,
      [Symbol.asyncDispose]: close,
    }
  }

  async #exchange(frame: Uint8Array): Promise<Uint8Array> {
    const { onDone, leaks } = this.#o
    this.#eventCount++
    leaks?.search('a message to the KMS', frame)
    const request = await this.#suffer('request', frame)
    const kms = this.#kms
    if (kms === undefined) throw unreachable()
    onDone?.({ on: 'request', name: 'request' })
    const answer = await kms.exchange(request)
    for (const late of this.#late.splice(0)) await kms.exchange(late)
    if (this.#kms !== kms) throw unreachable()
    leaks?.search('a message of the KMS', answer)
    const reply = await this.#suffer('reply', answer)
    onDone?.({ on: 'reply', name: 'reply' })
    return reply
  }

  /** What arrives of a message. @throws {KeyriseError} ERR_KMS_UNREACHABLE: nothing does. */
  async #suffer(on: 'request' | 'reply', message: Uint8Array): Promise<Uint8Array> {
    const fault = this.#o.fault?.({ on, name: on }) as MessageFault | undefined
    const earlier = this.#earlier
    if (on === 'request') this.#earlier = copyBytes(message)
    switch (fault) {
      case undefined:
        return message
      case 'never':
        return new Promise(() => undefined)
      case 'damage':
        return damaged(message)
      case 'replay':
        return earlier ?? message
      case 'double':
        await this.#kms?.exchange(copyBytes(message))
        return message
      case 'kms-stops':
        this.stop('kms')
        throw unreachable()
      case 'late':
        this.#late.push(message)
        throw unreachable()
      case 'lose':
        throw unreachable()
    }
  }
}

/** Nothing is left that could happen, and a promise has not settled. */
export class Stuck extends Error {
  constructor() {
    super('a promise that never settles')
  }
}

/** An operation takes a turn of the event loop, so that those of several flows, or of one checkpoint, overlap. */
const oneTurn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

const unreachable = (): KeyriseError => new KeyriseError('ERR_KMS_UNREACHABLE', { detail: 'the simulated wire' })

/** One bit, in the middle. */
const damaged = (bytes: Uint8Array): Uint8Array => {
  const copy = copyBytes(bytes)
  const middle = copy.length >>> 1
  copy[middle] = (copy[middle] ?? 0) ^ 1
  return copy
}

/** Temporary files are named after a process and a count of stores. */
const operationName = (kind: string, path: string): string => `${kind} ${path.replaceAll(/\.\d+-\d+\.tmp/g, '.tmp')}`

const readEntries = async ({ flow }: OpenedFlow): Promise<Record<string, string>> => {
  // Settles what a lost answer left open, which `list`, being synchronous, cannot.
  await flow.read('session/none')
  const entries: Record<string, string> = {}
  for (const { name } of flow.list()) {
    const bytes = await flow.read(name)
    if (bytes === undefined) continue
    entries[name] = toHex(bytes)
    bytes.fill(0)
  }
  return entries
}
