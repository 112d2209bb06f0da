import type { Bytes } from '../protocol/bytes.js'
import type { Secret } from '../protocol/crypto/secret.js'
import type { ObjectSchema, Schema, ValueOf } from './admin-schema.js'
import type { KmsControl } from './control.js'

/** Of a JSON body, or of a GET’s query; `secret`: the body as it is, which is wiped afterwards; `none`. */
export type RequestShape = ObjectSchema | 'secret' | 'none'
/** Of a JSON body; `bytes` and `text`: the body as it is. */
export type ReplyShape = Schema | 'bytes' | 'text'

export type RequestOf<Q> = Q extends 'secret' ? Secret : Q extends 'none' ? undefined : ValueOf<Q>
export type ReplyOf<P> = P extends 'bytes' ? Bytes : P extends 'text' ? string : ValueOf<P>

/** One thing that operators can ask of a running KMS. */
export interface AdminRoute<Q extends RequestShape = RequestShape, P extends ReplyShape = ReplyShape> {
  readonly method: 'GET' | 'POST'
  readonly path: `/${string}`
  /** One sentence for the description. */
  readonly summary: string
  readonly request: Q
  readonly reply: P
  /** Of the request’s body; 64 KiB unless told. */
  readonly requestSizeBytesMax?: number
  /** @param request - checked. A secret is borrowed. @throws {KeyriseError} whose code and detail the operator is told. */
  run(control: KmsControl, request: RequestOf<Q>): Promise<ReplyOf<P>>
}

/** A row of the table, with the types that its schemas say. */
export const adminRoute = <const Q extends RequestShape, const P extends ReplyShape>(
  route: AdminRoute<Q, P>,
): AdminRoute<Q, P> => route
