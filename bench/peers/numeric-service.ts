import type { MessagePort } from 'node:worker_threads'
import { NUMERIC_WORK, type NumericWork } from '../rows/numeric.js'

/** Does numeric work for whoever asks over `port`: the part that a plain worker’s script ends with. */
export const serveNumeric = (port: MessagePort): void => {
  port.on('message', ({ name, count }: NumericRequest) => port.postMessage(NUMERIC_WORK[name](count)))
  port.postMessage('ready')
}

export interface NumericRequest {
  readonly name: NumericWork
  readonly count: number
}
