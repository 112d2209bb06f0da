import type { MessagePort } from 'node:worker_threads'
import type { Bytes } from '../protocol/bytes.js'
import type { ErrorCode } from '../protocol/errors.js'
import type { RootSuite } from '../protocol/statements.js'
import type { KmsPlace } from './custody-files.js'
import type { KmsIdentity } from './place.js'
import type { Policy } from './policy.js'

/** What an embedded KMS’s worker is started with. The passphrase’s buffer moves to it, and is zero-filled there. */
export interface EmbeddedStart {
  readonly port: MessagePort
  readonly place: KmsPlace
  readonly policy: Policy
  readonly passphrase: Bytes
  readonly logN: number | undefined
  readonly suite: RootSuite | undefined
}

/** Host to worker: a frame to answer; or, without one, the wish to close. */
export interface EmbeddedRequest {
  readonly id: number
  readonly frame: Uint8Array
}
export const CLOSE = 'close'

/** Worker to host: first one of these, then answers. */
export type EmbeddedReady =
  | ({ readonly type: 'ready' } & KmsIdentity)
  | { readonly type: 'failed'; readonly code: ErrorCode; readonly detail?: string }
export interface EmbeddedReply {
  readonly id: number
  readonly frame: Bytes
}
