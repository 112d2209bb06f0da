import type { FlowId } from '../protocol/names.js'

/** An enclave has one session, and its next instance another before the first has gone; a spare or a reader may have one more. */
const SESSION_COUNT_MAX = 8

/** The sessions that serve each flow. One flow’s, which restarts in a loop say, push out its own unused ones and nobody else’s. */
export class FlowSessions<Session extends object> {
  readonly #byFlow = new Map<FlowId, Set<Session>>()
  readonly #flowOf = new WeakMap<Session, FlowId>()
  readonly #end: (session: Session) => void

  /** @param end - called with each session that makes room. */
  constructor(end: (session: Session) => void) {
    this.#end = end
  }

  /** A session has begun to serve a flow: it serves no other. */
  add(flow: FlowId, session: Session): void {
    const sessions = this.#byFlow.get(flow) ?? new Set()
    this.#byFlow.set(flow, sessions.add(session))
    this.#flowOf.set(session, flow)
    const [oldest] = sessions
    if (sessions.size <= SESSION_COUNT_MAX || oldest === undefined) return
    this.delete(oldest)
    this.#end(oldest)
  }

  /** A session was called: the one that has been called least lately makes room first. */
  use(session: Session): void {
    const flow = this.#flowOf.get(session)
    const sessions = flow === undefined ? undefined : this.#byFlow.get(flow)
    if (sessions?.delete(session) === true) sessions.add(session)
  }

  /** A session has ended. Fine where it served no flow. */
  delete(session: Session): void {
    const flow = this.#flowOf.get(session)
    if (flow === undefined) return
    const sessions = this.#byFlow.get(flow)
    sessions?.delete(session)
    if (sessions?.size === 0) this.#byFlow.delete(flow)
  }
}
