import type { FaultPlan, KillablePlatform, Moment } from 'keyrise/faults'
import { roundStep, type KillMoment, type PlannedKill, type Schedule } from './schedule.js'

/** What of the schedule has happened. */
export interface DoneKill {
  readonly flow: string
  readonly step: string
  readonly moment: KillMoment
}

interface FlowState {
  step: string | undefined
  /** The step's checkpoint has been written: the next word to the KMS is its commit. */
  hasWritten: boolean
  /** Calls that the recovering instance may still make; undefined where it may live. */
  recoveryCallsLeft: number | undefined
}

/** Carries a schedule out: told at every step, and asked at every call to store and KMS. */
export class Executioner {
  readonly #platform: KillablePlatform
  readonly #killKms: () => Promise<void>
  readonly #onKill: (kill: DoneKill) => void
  readonly #pending: Set<PlannedKill>
  #kmsKill: Schedule['kmsKill']
  readonly #states = new Map<string, FlowState>()

  constructor(options: {
    readonly schedule: Schedule
    readonly platform: KillablePlatform
    readonly killKms: () => Promise<void>
    readonly onKill: (kill: DoneKill) => void
  }) {
    this.#platform = options.platform
    this.#killKms = options.killKms
    this.#onKill = options.onKill
    this.#pending = new Set(options.schedule.kills)
    this.#kmsKill = options.schedule.kmsKill
  }

  /** Kills that were planned and have not come about: none, when all is well at the end. */
  get pending(): readonly PlannedKill[] {
    return [...this.#pending]
  }

  /** Before a step's call is made. */
  async enter(flow: string, step: string): Promise<void> {
    const state = this.#state(flow)
    state.step = step
    state.hasWritten = false
    const recovering = this.#take(flow, 'recovering')
    if (recovering !== undefined) {
      state.recoveryCallsLeft = recovering.recoveryCallCount
      await this.#kill(flow, step, 'between-calls')
    } else if (this.#take(flow, 'between-calls') !== undefined) await this.#kill(flow, step, 'between-calls')
  }

  /** Once the call is posted. */
  async posted(flow: string, step: string): Promise<void> {
    if (this.#take(flow, 'call-posted') !== undefined) await this.#kill(flow, step, 'call-posted')
  }

  leave(flow: string): void {
    this.#state(flow).step = undefined
  }

  /** For the wrappers of the flow's store and of its way to the KMS. */
  plan(flow: string): FaultPlan {
    return async ({ at, operation }: Moment) => {
      const state = this.#state(flow)
      const { step } = state
      if (step === undefined) return undefined
      if (state.recoveryCallsLeft !== undefined) {
        if (at === 'after' || state.recoveryCallsLeft-- > 0) return undefined
        state.recoveryCallsLeft = undefined
        await this.#kill(flow, step, 'recovering')
        return LOST
      }
      const moment = this.#momentOf(state, at, operation)
      if (operation === 'store-put' && at === 'after') state.hasWritten = true
      if (moment === 'commit-lost' && this.#kmsKill?.flow === flow && step === roundStep(this.#kmsKill.round)) {
        this.#kmsKill = undefined
        await this.#killKms()
        return undefined
      }
      if (moment === undefined || this.#take(flow, moment) === undefined) return undefined
      await this.#kill(flow, step, moment)
      return LOST
    }
  }

  #momentOf(state: FlowState, at: Moment['at'], operation: Moment['operation']): KillMoment | undefined {
    if (operation === 'store-put') return at === 'before' ? 'write-lost' : 'write-done'
    if (operation === 'kms-exchange' && state.hasWritten) return at === 'before' ? 'commit-lost' : 'commit-done'
    return undefined
  }

  /** The kill that is planned for this moment of the flow's present step. */
  #take(flow: string, moment: KillMoment): PlannedKill | undefined {
    const { step } = this.#state(flow)
    const found = [...this.#pending].find((kill) => kill.flow === flow && kill.step === step && kill.moment === moment)
    if (found !== undefined) this.#pending.delete(found)
    return found
  }

  async #kill(flow: string, step: string, moment: KillMoment): Promise<void> {
    this.#onKill({ flow, step, moment })
    await this.#platform.kill(flow)
  }

  #state(flow: string): FlowState {
    const state = this.#states.get(flow) ?? { step: undefined, hasWritten: false, recoveryCallsLeft: undefined }
    this.#states.set(flow, state)
    return state
  }
}

/** What the dead enclave's host sees of its call. */
const LOST = { fail: 'ERR_STORE_IO' } as const
