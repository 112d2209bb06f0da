import type { Port } from './ports.js'

/** The part of a `MessagePort` that a `Port` needs; structural, since this folder knows no platform. */
export interface MessageChannelEnd {
  postMessage(message: unknown, transfer?: readonly ArrayBuffer[]): void
  on(event: 'message', listen: (message: unknown) => void): unknown
  close(): void
}

/** A `Port` on one end of a `MessageChannel`. */
export const portOf = (end: MessageChannelEnd): Port => ({
  post: (message, transfer = []) => end.postMessage(message, transfer),
  onMessage: (listen) => void end.on('message', listen),
  close: () => end.close(),
})
