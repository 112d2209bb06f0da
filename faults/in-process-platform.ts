import { openFlow, type OpenedFlow } from '../enclave/flow.js'
import { serveInstance } from '../enclave/serve.js'
import { claimedId, encodeLifecycle, encodeRefusal, encodeReply, parseCall } from '../protocol/calls.js'
import type { EnclaveDefinition } from '../protocol/contract.js'
import type { KeyPairSigner } from '../protocol/crypto/keys.js'
import { isKeyriseError, outsideCode } from '../protocol/errors.js'
import { prepareEvidence } from '../protocol/evidence.js'
import { sha256 } from '../protocol/sha256.js'
import type { Bytes } from '../protocol/bytes.js'
import type { Clock, Port } from '../protocol/ports.js'
import { nodeClock } from '../storage/index.js'
import type { Image } from '../platform/image.js'
import type { Instance, LaunchOptions, Platform } from '../platform/platform.js'
import type { Boundary } from './faulty-port.js'
import { portPair } from './port-pair.js'

/** The two ends of a channel of a new instance; `kill` ends that instance as a power cut would. */
export type OpenPorts = (on: Boundary, kill: () => void) => [Port, Port]

export interface InProcessPlatformOptions {
  /** Of what runs inside. */
  readonly clock?: Clock
  /** Called with the flow of each instance that has opened it, before the instance serves. */
  readonly onOpened?: (opened: OpenedFlow) => void
  /** Between the host and each instance; `portPair` unless told. */
  readonly openPorts?: OpenPorts
}

/** A platform that isolates nothing: its instances run a definition in the host's own thread and realm. */
export class InProcessPlatform implements Platform {
  readonly publicKey: Bytes
  readonly #signer: KeyPairSigner
  readonly #definition: EnclaveDefinition
  readonly #clock: Clock
  readonly #onOpened: (opened: OpenedFlow) => void
  readonly #openPorts: OpenPorts
  readonly #live = new Set<Instance>()

  constructor(signer: KeyPairSigner, definition: EnclaveDefinition, options: InProcessPlatformOptions = {}) {
    const { clock = nodeClock, onOpened = () => undefined, openPorts = portPair } = options
    this.publicKey = signer.publicKey
    this.#signer = signer
    this.#definition = definition
    this.#clock = clock
    this.#onOpened = onOpened
    this.#openPorts = openPorts
  }

  launch(image: Image, options: LaunchOptions): Instance {
    const kill = (): void => void instance.kill()
    const [ecalls, ecallsInside] = this.#openPorts('ecall', kill)
    const [ocalls, ocallsInside] = this.#openPorts('ocall', kill)
    const [platform, platformInside] = portPair()
    const clock = new StoppableClock(this.#clock)
    const wipers = new Set<() => void>()
    let resolveExit: (exit: { readonly reason: string }) => void = () => undefined
    const exited = new Promise<{ readonly reason: string }>((resolve) => (resolveExit = resolve))
    const end = (reason: string): void => {
      for (const port of [ecalls, ocalls, platform]) port.close()
      clock.stop()
      this.#live.delete(instance)
      resolveExit({ reason })
    }
    const wipe = (): void => {
      for (const each of wipers) each()
      wipers.clear()
    }
    const instance: Instance = {
      ecalls,
      ocalls,
      exited,
      terminate: () => {
        wipe()
        end('ended')
        return Promise.resolve()
      },
      kill: () => {
        end('killed')
        return Promise.resolve()
      },
    }
    this.#live.add(instance)
    this.#attest(platform, image, options.configuration)
    const { configuration, flow, task, isolation = 'worker' } = options
    const inside = { ecalls: ecallsInside, ocalls: ocallsInside, platform: platformInside, onRelease: () => undefined }
    serveInstance({
      definition: this.#definition,
      openFlow: async (flowOptions) => {
        const opened = await openFlow(flowOptions)
        this.#onOpened(opened)
        return opened
      },
      instance: { ...inside, isolation, configuration, measurement: image.measurement, flow, task },
      clock,
      wipeAtExit: (each) => wipers.add(each),
    }).catch((error: unknown) => {
      const code = isKeyriseError(error) ? outsideCode(error.code) : 'ERR_LAUNCH_FAILED'
      ecallsInside.post(encodeLifecycle({ type: 'FAILED', code }).message)
      wipe()
      // When the message has arrived.
      setImmediate(() => setImmediate(end, 'failed'))
    })
    return instance
  }

  /** Ends what runs, as a power cut would: nothing is wiped, and nothing more of it happens outside. */
  async crash(): Promise<void> {
    const doomed = [...this.#live]
    await Promise.all(doomed.map((instance) => instance.kill()))
  }

  #attest(port: Port, image: Image, configuration: Bytes): void {
    port.onMessage((message) => {
      try {
        const { id, claimedArgument } = parseCall(message)
        const { name, svn } = image.manifest
        const evidence = prepareEvidence({
          ...(claimedArgument as { nonce: Bytes; confirmationKey: Bytes }),
          measurement: image.measurement,
          name,
          svn,
          configDigest: sha256(configuration),
          debug: true,
          signed: null,
        })
        const reply = encodeReply(id, evidence.join(this.#signer.sign(evidence.toSign)))
        port.post(reply.message, reply.transfer)
      } catch (error) {
        port.post(encodeRefusal(claimedId(message), error).message)
      }
    })
  }
}

/** Whose timers end with an instance: a dead one neither acts nor keeps the process alive. */
class StoppableClock implements Clock {
  readonly #clock: Clock
  readonly #timers = new Set<Disposable>()
  #isStopped = false

  constructor(clock: Clock) {
    this.#clock = clock
  }

  nowMs(): number {
    return this.#clock.nowMs()
  }

  timer(delayMs: number, elapsed: () => void): Disposable {
    if (this.#isStopped) return { [Symbol.dispose]: () => undefined }
    const timer = this.#clock.timer(delayMs, () => {
      this.#timers.delete(timer)
      elapsed()
    })
    this.#timers.add(timer)
    return {
      [Symbol.dispose]: () => {
        this.#timers.delete(timer)
        timer[Symbol.dispose]()
      },
    }
  }

  stop(): void {
    this.#isStopped = true
    for (const timer of this.#timers) timer[Symbol.dispose]()
    this.#timers.clear()
  }
}
