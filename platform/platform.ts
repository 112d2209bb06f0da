import type { Bytes } from '../protocol/bytes.js'
import type { Isolation } from '../protocol/configuration.js'
import type { FlowId } from '../protocol/names.js'
import type { Port } from '../protocol/ports.js'
import type { Image } from './image.js'

/**
 * What stands for silicon: it measures an image, runs exactly what it measured, and signs evidence for that and nothing
 * else. Real hardware can implement it; `SimulatedPlatform` isolates nobody who controls the process.
 */
export interface Platform {
  /** Ed25519, 32 bytes: verifies this platform's evidence. A KMS's policy lists it. */
  readonly publicKey: Bytes
  /** Starts an instance. It says READY or FAILED on `ecalls` by itself (protocol/calls.ts). */
  launch(image: Image, options: LaunchOptions): Instance
}

export interface LaunchOptions {
  /** `encodeConfiguration(…)`: evidence carries its digest. */
  readonly configuration: Bytes
  readonly flow: FlowId
  readonly task: FlowId
  /** What to run it in: a worker by default. It must be what `configuration` says. */
  readonly isolation?: Isolation
}

/** One running enclave, from outside. */
export interface Instance {
  /** Calls into the enclave, and its lifecycle message. */
  readonly ecalls: Port
  /** Calls out of the enclave. */
  readonly ocalls: Port
  /** Resolves, never rejects, when the instance is gone, whatever ended it. */
  readonly exited: Promise<{ readonly reason: string }>
  /** Asks the enclave to wipe its secrets, waits a bounded time, then ends it. Safe to repeat. */
  terminate(): Promise<void>
  /** Ends it at once, as a crash would: nothing is wiped. Resolves when it is gone. */
  kill(): Promise<void>
}
