/** What a host is to do: see host.ts. */
export interface HostPlan {
  readonly machine: string
  readonly image: string
  readonly store: string
  readonly url: string
  /** Hexadecimal. */
  readonly identity: string
  readonly firstRound: number
  readonly roundCount: number
  /** Of the middle entry. */
  readonly sizeBytes: number
  /** At which moment to kill the enclave, counted from the last kill each. */
  readonly enclaveKills: readonly number[]
  readonly untilKilled?: boolean
  readonly untilFailure?: boolean
}

/** One line of a host's standard output. */
export type Said =
  | { readonly rounds: readonly number[]; readonly signature: string }
  | { readonly intended: number }
  | { readonly acknowledged: number; readonly epoch: number }
  | { readonly failed: number; readonly code: string }
  | { readonly killed: string }

/** Knows what was acknowledged, over all the deaths of those who say it, and finds what contradicts it. */
export class Witness {
  readonly violations: string[] = []
  /** Codes of rounds that failed, newest last. */
  readonly failures: string[] = []
  readonly killed: string[] = []
  #intended = 0
  #acknowledged = 0
  #epoch = 0
  #signature: string | undefined
  #stateCount = 0

  /** A round that nobody has announced yet. */
  get nextRound(): number {
    return this.#intended + 1
  }

  get acknowledged(): number {
    return this.#acknowledged
  }

  /** How many times a recovered state was compared. */
  get stateCount(): number {
    return this.#stateCount
  }

  hear(said: Said, where: string): void {
    if ('intended' in said) this.#intended = said.intended
    else if ('acknowledged' in said) this.#hearAcknowledged(said.acknowledged, said.epoch, where)
    else if ('rounds' in said) this.#hearState(said.rounds, said.signature, where)
    else if ('killed' in said) this.killed.push(said.killed)
    else this.failures.push(said.code)
  }

  #hearAcknowledged(round: number, epoch: number, where: string): void {
    this.#acknowledged = round
    if (epoch <= this.#epoch) this.violations.push(`${where}: epoch ${epoch} after epoch ${this.#epoch}`)
    this.#epoch = Math.max(this.#epoch, epoch)
  }

  #hearState(rounds: readonly number[], signature: string, where: string): void {
    this.#stateCount++
    const [round = NaN] = rounds
    if (rounds.some((other) => other !== round)) this.violations.push(`${where}: torn: rounds ${rounds.join(', ')}`)
    if (round < this.#acknowledged)
      this.violations.push(`${where}: round ${round} after round ${this.#acknowledged} was acknowledged`)
    if (round > this.#intended) this.violations.push(`${where}: round ${round}, which nobody wrote`)
    if ((this.#signature ??= signature) !== signature) this.violations.push(`${where}: another signing key`)
    // What was once shown must stay.
    this.#acknowledged = Math.max(this.#acknowledged, round)
  }
}
