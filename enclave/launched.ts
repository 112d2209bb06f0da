import type { MessagePort } from 'node:worker_threads'
import { copyBytes, type Bytes } from '../protocol/bytes.js'
import { encodeRefusal } from '../protocol/calls.js'
import { decodeCbor } from '../protocol/cbor.js'
import { FieldReader } from '../protocol/check.js'
import type { Isolation } from '../protocol/configuration.js'
import { CONFIGURATION_SIZE_BYTES_MAX, NAME_LENGTH_MAX } from '../protocol/limits.js'
import { portOf } from '../protocol/message-port.js'
import { parseFlowId, type FlowId } from '../protocol/names.js'
import type { Port } from '../protocol/ports.js'
import { RingPort } from '../protocol/ring-port.js'
import { SocketPort } from '../protocol/socket-port.js'
import { flushAtExit, launched } from './boot.js'
import type { ProcessStart } from './process-start.js'
import { withSwitchless } from './switchless-port.js'

/** What the platform passes to an instance. The platform is trusted; the ports to the host are not. */
export interface Launched {
  /** Where this instance runs. */
  readonly isolation: Isolation
  readonly ecalls: Port
  readonly ocalls: Port
  readonly platform: Port
  /** Runs `released` when the platform lets go of this instance, or is gone. */
  readonly onRelease: (released: () => void) => void
  readonly configuration: Bytes
  readonly measurement: Bytes
  readonly flow: FlowId
  readonly task: FlowId
}

interface WorkerStart {
  readonly ecalls: MessagePort
  readonly ocalls: MessagePort
  readonly platform: MessagePort
  /** Never read: that it exists tells a host that blocks that this instance lives. */
  readonly life?: MessagePort
  /** Beside `ecalls`, where the platform gives some. */
  readonly rings?: { readonly into: SharedArrayBuffer; readonly outOf: SharedArrayBuffer }
  readonly configuration: Bytes
  readonly measurement: Bytes
  readonly flow: string
  readonly task: string
}

/** What this instance was launched with, whichever way it came. */
export const launchedInstance = (): Launched => {
  const start = launched as WorkerStart | ProcessStart
  return 'isolation' in start ? inProcess(start) : inWorker(start)
}

/** Taken before anybody could replace them. */
const defer = process.nextTick.bind(process) as (work: () => void) => void
const { setImmediate } = globalThis

const inWorker = ({ ecalls, rings, ocalls, platform, ...start }: WorkerStart): Launched => ({
  isolation: 'worker',
  ecalls:
    rings === undefined
      ? portOf(ecalls)
      : new RingPort({
          beside: ecalls,
          incoming: rings.into,
          outgoing: rings.outOf,
          defer: setImmediate,
          heedsBackpressure: true,
        }),
  ocalls: portOf(ocalls),
  platform: portOf(platform),
  onRelease: (released) => void platform.on('close', released),
  configuration: start.configuration,
  measurement: copyBytes(start.measurement),
  flow: parseFlowId(start.flow),
  task: parseFlowId(start.task),
})

const inProcess = (start: ProcessStart): Launched => {
  const ecalls: SocketPort = new SocketPort(start.ecalls, {
    defer,
    malformed: (error) => ecalls.post(encodeRefusal(undefined, error).message),
    waitsForReader: true,
  })
  // What is no answer answers nothing: the call that waits goes on waiting.
  const malformed = (): void => undefined
  const ocalls = new SocketPort(start.ocalls, { defer, malformed, waitsForReader: true })
  const switchless: SocketPort = new SocketPort(start.switchless, {
    defer,
    malformed: (error) => switchless.post(encodeRefusal(undefined, error).message),
    waitsForReader: true,
  })
  // Always read, so that its end is noticed.
  const platform = new SocketPort(start.platform, { defer, malformed, waitsForReader: false })
  flushAtExit(() => {
    for (const port of [ecalls, switchless, ocalls]) port.flush()
  })
  const fields = new FieldReader(
    decodeCbor(start.start),
    ['configuration', 'measurement', 'flow', 'task'],
    'ERR_CONFIG_INVALID',
  )
  return {
    isolation: 'process',
    ecalls: withSwitchless(ecalls, switchless),
    ocalls,
    platform,
    onRelease: (released) => void platform.closed.then(released),
    configuration: fields.bytes('configuration', 0, CONFIGURATION_SIZE_BYTES_MAX),
    measurement: fields.bytes('measurement', 32),
    flow: parseFlowId(fields.text('flow', NAME_LENGTH_MAX)),
    task: parseFlowId(fields.text('task', NAME_LENGTH_MAX)),
  }
}
