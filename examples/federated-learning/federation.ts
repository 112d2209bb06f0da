import {
  connectKms,
  DirectoryStore,
  isKeyriseError,
  launch,
  type EnclaveEvent,
  type EnclaveHandle,
  type ErrorCode,
  type Image,
  type KmsLink,
  type Store,
} from 'keyrise'
import { faultyKms, faultyStore, type KillablePlatform, type Recorder } from 'keyrise/faults'
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { addContributions } from './aggregator.js'
import { Archive } from './archive.js'
import type { DecryptorEnclave } from './decryptor.enclave.js'
import { sealRecords } from './intake.js'
import type { Executioner } from './kills.js'
import type { KmsProcess } from './kms-process.js'
import type { Contribution, Receipt, Release, Terms } from './messages.js'
import type { PartyEnclave } from './party.enclave.js'
import { encodeRecords, type Records } from './records.js'
import { DECRYPTOR_FLOW, roundStep } from './schedule.js'
import { HOSPITAL_FLOWS, type HospitalFlow } from './split.js'

export const TASK = 'breast-cancer-2026'
const QUORUM = 2

export interface FederationImages {
  readonly party: Image<PartyEnclave>
  readonly decryptor: Image<DecryptorEnclave>
}

export interface FederationOptions {
  /** Everything that the run writes lies under it. */
  readonly directory: string
  readonly images: FederationImages
  readonly platform: KillablePlatform
  readonly recorder: Recorder
  readonly kms: KmsProcess
  readonly shares: Readonly<Record<HospitalFlow, Records>>
  readonly roundCount: number
  readonly executioner: Executioner
  readonly onEvent: (flow: string, event: EnclaveEvent) => void
  /** A host that serves something else than what was stored: see tamper.ts. */
  readonly serve?: (flow: string, store: Store) => Store
}

/** The outcome is unknown, or the call was not made: the ECALLs of this job may all be repeated. */
const REPEATABLE: readonly ErrorCode[] = [
  'ERR_ENCLAVE_LOST',
  'ERR_DEADLINE',
  'ERR_KMS_UNREACHABLE',
  'ERR_KMS_FAILED',
  'ERR_SESSION_INVALID',
]
const ATTEMPT_COUNT_MAX = 10

interface Hospital {
  readonly archive: { current: Archive | undefined }
  handle: EnclaveHandle<PartyEnclave> | undefined
}

/** Three hospitals, a decryptor, and the hosts that run them. Nothing in here knows a key. */
export class Federation implements AsyncDisposable {
  readonly #o: FederationOptions
  readonly #link: KmsLink
  readonly #hospitals = new Map<HospitalFlow, Hospital>(
    HOSPITAL_FLOWS.map((flow) => [flow, { archive: { current: undefined }, handle: undefined }]),
  )
  #decryptor: EnclaveHandle<DecryptorEnclave> | undefined
  readonly #releases: Release[] = []
  /** By flow and entry: what the enclaves said that they have stored. */
  readonly receipts = new Map<string, Map<string, string>>()
  /** Resolves when the KMS serves, again. */
  kmsReady: Promise<void> = Promise.resolve()

  private constructor(options: FederationOptions, link: KmsLink) {
    this.#o = options
    this.#link = link
  }

  static async open(options: FederationOptions): Promise<Federation> {
    mkdirSync(join(options.directory, 'store'), { recursive: true })
    const federation = new Federation(options, options.recorder.kms(await connectKms(options.kms.url)))
    await Promise.all([federation.#launchDecryptor(), ...HOSPITAL_FLOWS.map((flow) => federation.join(flow))])
    return federation
  }

  get terms(): Terms {
    return {
      hospitals: [...HOSPITAL_FLOWS].sort(),
      decryptor: DECRYPTOR_FLOW,
      quorum: QUORUM,
      roundCount: this.#o.roundCount,
    }
  }

  get releases(): readonly Release[] {
    return this.#releases
  }

  /** Launches a hospital’s enclave; it recovers where it has been before. */
  async join(flow: HospitalFlow): Promise<void> {
    const hospital = this.#hospital(flow)
    const archive = (): Archive => {
      if (hospital.archive.current === undefined) throw new Error('there is no archive yet')
      return hospital.archive.current
    }
    const ocalls = {
      archiveChallenge: () => archive().challenge(),
      archiveRead: (login: Parameters<Archive['read']>[0]) => archive().read(login),
      archiveDeliver: (delivery: Parameters<Archive['deliver']>[0]) => archive().deliver(delivery),
    }
    hospital.handle = await launch<PartyEnclave>({ ...this.surroundingsOf(flow), image: this.#o.images.party, ocalls })
  }

  /** The hospital’s host goes away. */
  async leave(flow: HospitalFlow): Promise<void> {
    const hospital = this.#hospital(flow)
    await hospital.handle?.close()
    hospital.handle = undefined
  }

  /** Own secrets, then the records, sealed by each hospital’s data station. @returns the homomorphic public key. */
  async enrol(): Promise<Uint8Array> {
    const opened = this.step(DECRYPTOR_FLOW, 'open', () => this.decryptor.ecalls.open(this.terms))
    await this.#each(async (flow) => {
      const { intakeKey, verifier } = await this.step(flow, 'enrol', () => this.party(flow).ecalls.enrol({}))
      const records = encodeRecords(this.#o.shares[flow])
      this.#hospital(flow).archive.current = new Archive(verifier, await sealRecords(intakeKey, records))
      await this.step(flow, 'prepare', () => this.party(flow).ecalls.prepare({}))
    })
    return (await opened).homomorphicKey
  }

  /** Terms, sessions and authorizations. */
  async agree(homomorphicKey: Uint8Array): Promise<void> {
    const { terms } = this
    const joined = new Map<HospitalFlow, Uint8Array>()
    await this.#each(async (flow) => {
      const { authorization } = await this.step(flow, 'join', () =>
        this.party(flow).ecalls.join({ terms, homomorphicKey }),
      )
      joined.set(flow, authorization)
    })
    for (const [flow, authorization] of joined) {
      const { admission } = await this.step(DECRYPTOR_FLOW, `admit-${flow}`, () =>
        this.decryptor.ecalls.admit({ flow, authorization }),
      )
      await this.step(flow, 'accept', () => this.party(flow).ecalls.accept({ admission }))
    }
  }

  /** One hospital’s contribution to a round. */
  async contribute(flow: HospitalFlow, round: number, participants: string[]): Promise<Contribution> {
    const releases = this.#releases.slice(0, round)
    const { contribution } = await this.step(flow, roundStep(round), () =>
      this.party(flow).ecalls.train({ round, participants, releases }),
    )
    return contribution
  }

  /** The aggregator’s part of a round, and the decryptor’s answer. */
  async release(round: number, contributions: Contribution[]): Promise<Release> {
    const sum = await addContributions(contributions)
    const { release } = await this.step(DECRYPTOR_FLOW, roundStep(round), () =>
      this.decryptor.ecalls.release({ round, sum, contributions }),
    )
    this.#releases[round] = release
    return release
  }

  /** One whole round. */
  async runRound(round: number, participants: string[]): Promise<Release> {
    const flows = HOSPITAL_FLOWS.filter((flow) => participants.includes(flow))
    return this.release(round, await Promise.all(flows.map((flow) => this.contribute(flow, round, participants))))
  }

  /** Every hospital’s own copy of the weights, as it computed them. */
  async conclude(): Promise<Uint8Array[]> {
    const weights: Uint8Array[] = []
    await this.#each(async (flow) => {
      const releases = [...this.#releases]
      weights.push((await this.step(flow, 'conclude', () => this.party(flow).ecalls.conclude({ releases }))).weights)
      if (this.#hospital(flow).archive.current?.delivered === undefined) throw new Error(`${flow} delivered nothing`)
    })
    return weights
  }

  /** A step of the schedule: makes the call, and makes it again while its outcome is unknown. */
  async step<T extends { readonly receipts: readonly Receipt[] }>(
    flow: string,
    step: string,
    call: () => Promise<T>,
  ): Promise<T> {
    await this.#o.executioner.enter(flow, step)
    try {
      for (let attempt = 1; ; attempt++) {
        const [outcome] = await Promise.allSettled([call(), this.#o.executioner.posted(flow, step)])
        if (outcome.status === 'fulfilled') {
          this.#keepReceipts(flow, outcome.value.receipts)
          return outcome.value
        }
        if (attempt === ATTEMPT_COUNT_MAX || !isKeyriseError(outcome.reason, ...REPEATABLE)) throw outcome.reason
        await this.kmsReady
      }
    } finally {
      this.#o.executioner.leave(flow)
    }
  }

  party(flow: HospitalFlow): EnclaveHandle<PartyEnclave> {
    const { handle } = this.#hospital(flow)
    if (handle === undefined) throw new Error(`${flow} is away`)
    return handle
  }

  get decryptor(): EnclaveHandle<DecryptorEnclave> {
    if (this.#decryptor === undefined) throw new Error('the decryptor has not been launched')
    return this.#decryptor
  }

  storeOf(flow: string): Store {
    const stored = new DirectoryStore(join(this.#o.directory, 'store'))
    return this.#o.serve?.(flow, stored) ?? stored
  }

  /** Each flow has a host of its own: its own store, its own way to the KMS, its own faults. */
  surroundingsOf(flow: string) {
    const { platform, recorder, executioner, onEvent } = this.#o
    const plan = executioner.plan(flow)
    return {
      platform,
      store: faultyStore(recorder.store(this.storeOf(flow)), plan),
      kms: faultyKms(this.#link, plan),
      flow,
      task: TASK,
      onEvent: (event: EnclaveEvent) => {
        onEvent(flow, event)
      },
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all([this.#decryptor?.close(), ...HOSPITAL_FLOWS.map((flow) => this.leave(flow))])
    await this.#link.close()
  }

  async #launchDecryptor(): Promise<void> {
    this.#decryptor = await launch<DecryptorEnclave>({
      ...this.surroundingsOf(DECRYPTOR_FLOW),
      image: this.#o.images.decryptor,
    })
  }

  #hospital(flow: HospitalFlow): Hospital {
    const hospital = this.#hospitals.get(flow)
    if (hospital === undefined) throw new Error(`there is no hospital ${flow}`)
    return hospital
  }

  async #each(work: (flow: HospitalFlow) => Promise<void>): Promise<void> {
    await Promise.all(HOSPITAL_FLOWS.map(work))
  }

  #keepReceipts(flow: string, receipts: readonly Receipt[]): void {
    const known = this.receipts.get(flow) ?? new Map<string, string>()
    for (const { name, commitment } of receipts) known.set(name, Buffer.from(commitment).toString('hex'))
    this.receipts.set(flow, known)
  }
}
