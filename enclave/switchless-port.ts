import type { Listen, ListenDirectly, Port, RefusedBytes } from '../protocol/ports.js'
import type { SocketPort } from '../protocol/socket-port.js'

/**
 * ECALLs by two sockets: one for calls whose caller blocks. Those are answered before their delivery returns (enclave/gate.ts),
 * so an answer goes back on the socket that is being read.
 */
export const withSwitchless = (calls: SocketPort, switchless: SocketPort): Port => {
  let answering = calls
  return {
    post: (message) => answering.post(message),
    onMessage: (listen: Listen, refused?: RefusedBytes, directly?: ListenDirectly) => {
      calls.onMessage(listen, refused, directly)
      switchless.onMessage((message, sizeBytes) => {
        answering = switchless
        try {
          listen(message, sizeBytes)
        } finally {
          answering = calls
        }
      })
    },
    close: () => {
      for (const port of [calls, switchless]) port.close()
    },
  }
}
