/**
 * What a debug image tells of what goes on inside. A production image has none: enclave/debug.ts, which sets it, is not part of
 * one, and nothing else can.
 */
export interface Diagnostics {
  /** Passes on to the host what was printed, from the first line on, in order. */
  attach(send: SendOutput): void
  /** Prints why this instance is about to end, and passes everything on at once. */
  fail(error: unknown): void
}

export interface OutputLine {
  /** The name of the console’s method: `log`, `error`, … */
  readonly level: string
  readonly text: string
}

/** Resolves or rejects when there may be more. */
export type SendOutput = (lines: readonly OutputLine[]) => Promise<unknown>

let current: Diagnostics | undefined

export const diagnostics = (): Diagnostics | undefined => current

export const setDiagnostics = (made: Diagnostics): void => {
  current = made
}
