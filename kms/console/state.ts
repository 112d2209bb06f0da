/** What the console shows: names, counts and times of a running KMS; nothing of it is secret. Times are milliseconds since the epoch. */
export interface ConsoleState {
  /** Goes up with every change; what a page asks to be newer than. */
  readonly version: number
  readonly nowMs: number
  readonly startedMs: number
  readonly custody: 'sealed' | 'unlocked'
  /** The KMS identity, hex. */
  readonly identity: string
  readonly keys: readonly ConsoleKey[]
  readonly flows: readonly ConsoleFlow[]
  /** Attested sessions that are open. */
  readonly enclaves: readonly ConsoleEnclave[]
  /** Claims, the newest first. */
  readonly recoveries: readonly ConsoleRecovery[]
  /** The newest first. */
  readonly receipts: readonly ConsoleReceipt[]
  readonly health: readonly ConsoleFigure[]
}

/** A version of a root key. */
export interface ConsoleKey {
  /** `root@2` */
  readonly key: string
  readonly suite: string
  readonly state: string
  /** As an age recipient. */
  readonly recipient: string
}

export interface ConsoleFlow {
  readonly flow: string
  readonly task: string
  /** The policy's name for its image, or the first digits of its measurement. */
  readonly image: string
  /** 0 before the first checkpoint. */
  readonly epoch: number
  readonly incarnation: number
  /** Id of the root key that it seals to, without its version. */
  readonly root: string
  readonly state: 'active' | 'destroyed' | 'stale state accepted'
}

export interface ConsoleEnclave {
  readonly image: string
  /** Empty before it has opened one. */
  readonly flow: string
  readonly sinceMs: number
  readonly callCount: number
  /** `superseded`: a later session has opened its flow. */
  readonly state: 'live' | 'superseded'
}

export interface ConsoleRecovery {
  readonly timeMs: number
  readonly flow: string
  readonly epoch: number
  readonly incarnation: number
}

export interface ConsoleReceipt {
  readonly sequence: number
  readonly timeMs: number
  readonly kind: string
  /** Empty where it is of none. */
  readonly flow: string
  /** A code where it was refused; empty where it was done. */
  readonly outcome: string
}

export interface ConsoleFigure {
  readonly name: string
  readonly value: string
  readonly isGood: boolean
}
