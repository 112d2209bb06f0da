import test from 'ava'
import fc from 'fast-check'
import type { OpenedFlow } from '../../enclave/flow.js'
import type { CheckpointValue } from '../../protocol/contract.js'
import { isKeyriseError } from '../../protocol/errors.js'
import { readAll, startWorld, text, type Interrupt, type World } from './flow-world.js'

/**
 * A flow beside a plain Map, through checkpoints, deletions, lost operations, deaths, relaunches and clones at random. A
 * checkpoint that failed may count or not, but as a whole, and for good once it was seen.
 */

type State = Readonly<Record<string, string>>
interface Fault {
  readonly operation: 'store-put' | 'store-delete' | 'store-get' | 'store-read' | 'kms-exchange'
  readonly at: 'before' | 'after'
  readonly count: number
  /** `die`: nothing of the instance happens any more. `outage`: this kind of operation fails until the action ends. */
  readonly kind: 'once' | 'outage' | 'die'
}
type Action =
  | {
      readonly do: 'checkpoint'
      readonly entries: readonly (readonly [name: string, value: string, direct: boolean])[]
      readonly fault: Fault | undefined
    }
  | { readonly do: 'delete'; readonly pick: number; readonly fault: Fault | undefined }
  | { readonly do: 'read' }
  | { readonly do: 'relaunch'; readonly fault: Fault | undefined }
  | { readonly do: 'clone' }

const fault = fc.option(
  fc.record<Fault>({
    operation: fc.constantFrom('store-put', 'store-delete', 'store-get', 'store-read', 'kms-exchange'),
    at: fc.constantFrom('before', 'after'),
    count: fc.integer({ min: 1, max: 6 }),
    kind: fc.constantFrom('once', 'outage', 'die'),
  }),
  { nil: undefined },
)
const entry = fc.tuple(
  fc.constantFrom('password/a', 'password/b', 'session/c', 'session/d', 'final-result/e'),
  fc.string({ maxLength: 8 }),
  fc.boolean(),
)
const action: fc.Arbitrary<Action> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constant('checkpoint' as const),
      entries: fc.array(entry, { minLength: 1, maxLength: 4 }),
      fault,
    }),
  },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('delete' as const), pick: fc.nat(9), fault }) },
  { weight: 2, arbitrary: fc.constant({ do: 'read' as const }) },
  { weight: 3, arbitrary: fc.record({ do: fc.constant('relaunch' as const), fault }) },
  { weight: 1, arbitrary: fc.constant({ do: 'clone' as const }) },
)

const canonical = (state: State): string => JSON.stringify(Object.entries(state).sort(([a], [b]) => (a < b ? -1 : 1)))

/** What the flow may hold, given what was acknowledged, what failed and what was seen. */
class Model {
  #possible: State[] = [{}]
  #epochAcknowledged = 0

  any(): State {
    return this.#possible[0] ?? {}
  }

  acknowledged(change: (state: State) => State, epoch: number): void {
    if (epoch <= this.#epochAcknowledged) throw new Error(`epoch ${epoch} after ${this.#epochAcknowledged}`)
    this.#epochAcknowledged = epoch
    this.#possible = this.#possible.map(change)
  }

  failed(change: (state: State) => State): void {
    this.#possible = [...this.#possible, ...this.#possible.map(change)]
  }

  saw(state: State, epoch: number): void {
    if (epoch < this.#epochAcknowledged) throw new Error(`epoch ${epoch}, ${this.#epochAcknowledged} was acknowledged`)
    if (!this.#possible.some((possible) => canonical(possible) === canonical(state))) {
      throw new Error(`saw ${canonical(state)}, possible ${this.#possible.map(canonical).join(' or ')}`)
    }
    this.#possible = [state]
  }
}

/** A flow's instances, one after the other, with a fault to come. */
class Life {
  readonly #world: World
  readonly model = new Model()
  #plan: { fault: Fault; left: number } | undefined
  #current: { opened: OpenedFlow; life: { dead: boolean } } | undefined

  constructor(world: World) {
    this.#world = world
  }

  async run(action: Action): Promise<void> {
    switch (action.do) {
      case 'checkpoint': {
        const values: Record<string, CheckpointValue> = {}
        for (const [name, value, direct] of action.entries)
          values[name] = direct ? { to: 'kms', bytes: text(value) } : text(value)
        const written = Object.fromEntries(action.entries.map(([name, value]) => [name, value]))
        return this.#change(
          action.fault,
          (state) => ({ ...state, ...written }),
          ({ flow }) => flow.checkpoint(values),
        )
      }
      case 'delete': {
        const { flow } = await this.#settled()
        const names = flow.list().map(({ name }) => name)
        const name = names[action.pick % names.length]
        if (name === undefined) return
        const without = (state: State): State =>
          Object.fromEntries(Object.entries(state).filter(([held]) => held !== name))
        return this.#change(action.fault, without, ({ flow }) => flow.delete([name]))
      }
      case 'read':
        return this.#look()
      case 'relaunch':
        this.#current = undefined
        this.#arm(action.fault)
        await this.#launch().catch(() => undefined)
        this.#plan = undefined
        return this.#look()
      case 'clone': {
        const older = await this.#instance()
        const seen = await this.#launch()
        await this.#look()
        const refused = await older.flow.checkpoint({ 'password/a': text('of a clone') }).then(
          () => undefined,
          (error: unknown) => error,
        )
        if (!isKeyriseError(refused, 'ERR_FENCED')) throw new Error('a clone was not fenced')
        this.model.saw((await readAll(seen)) as State, seen.flow.epoch)
      }
    }
  }

  async #change(
    planned: Fault | undefined,
    change: (state: State) => State,
    make: (opened: OpenedFlow) => Promise<number>,
  ): Promise<void> {
    const opened = await this.#instance()
    this.#arm(planned)
    try {
      this.model.acknowledged(change, await make(opened))
    } catch (error) {
      if (this.#plan === undefined || this.#plan.left > 0) throw error
      this.model.failed(change)
    }
    this.#plan = undefined
    if (this.#current?.life.dead === true) this.#current = undefined
  }

  async #look(): Promise<void> {
    const opened = await this.#settled()
    this.model.saw((await readAll(opened)) as State, opened.flow.epoch)
  }

  /** With nothing left open by a lost answer, which `list`, being synchronous, cannot settle. */
  async #settled(): Promise<OpenedFlow> {
    const opened = await this.#instance()
    await opened.flow.read('password/a')
    return opened
  }

  async #instance(): Promise<OpenedFlow> {
    return this.#current?.opened ?? this.#launch()
  }

  async #launch(): Promise<OpenedFlow> {
    const life = { dead: false }
    const opened = await this.#world.launch({ interrupt: this.#interrupt(life) })
    this.#current = { opened, life }
    return opened
  }

  #arm(planned: Fault | undefined): void {
    this.#plan = planned && { fault: planned, left: planned.count }
  }

  #interrupt(life: { dead: boolean }): Interrupt {
    return ({ at, operation }) => {
      if (life.dead) throw new Error('dead')
      const plan = this.#plan
      if (plan === undefined || plan.fault.operation !== operation || plan.fault.at !== at) return
      plan.left--
      if (plan.left > 0 || (plan.left < 0 && plan.fault.kind === 'once')) return
      life.dead = plan.fault.kind === 'die'
      throw new Error('a fault')
    }
  }
}

test('a flow is a Map that survives: checkpoints, deletions, faults, deaths and clones at random', async (t) => {
  await fc.assert(
    fc.asyncProperty(fc.array(action, { minLength: 3, maxLength: 14 }), async (actions) => {
      const life = new Life(await startWorld())
      for (const next of actions) await life.run(next)
      await life.run({ do: 'relaunch', fault: undefined })
    }),
    { numRuns: 60, includeErrorInReport: true, interruptAfterTimeLimit: 60_000, markInterruptAsFailure: false },
  )
  t.pass()
})
