import { portPair } from '../../faults/index.js'
import type { Image, Instance, Platform } from '../../host/index.js'
import { allocate, type Bytes } from '../../protocol/bytes.js'
import { claimedType, encodeLifecycle, encodeRefusal, encodeReply, parseCall } from '../../protocol/calls.js'
import type { ErrorCode } from '../../protocol/errors.js'
import type { CallId, ClaimedCall, KmsLink, Port } from '../../protocol/ports.js'

/** An enclave whose every move the test makes. */
export class ScriptedEnclave implements Instance {
  readonly ecalls: Port
  readonly ocalls: Port
  readonly exited: Promise<{ reason: string }>
  /** Its own ends of the ports. */
  readonly inside: { readonly ecalls: Port; readonly ocalls: Port }
  /** The calls that arrived. */
  readonly calls: ClaimedCall[] = []
  readonly replies: unknown[] = []
  terminateCount = 0
  onCall: (call: ClaimedCall) => void = (call) => {
    this.reply(call.id, call.claimedArgument)
  }
  #exit!: (exit: { reason: string }) => void

  constructor() {
    const [ecalls, ecallsInside] = portPair()
    const [ocalls, ocallsInside] = portPair()
    this.ecalls = ecalls
    this.ocalls = ocalls
    this.inside = { ecalls: ecallsInside, ocalls: ocallsInside }
    this.exited = new Promise((resolve) => (this.#exit = resolve))
    ecallsInside.onMessage((message) => {
      // What follows a call, as CANCEL at its deadline, is of no interest here.
      if (claimedType(message) !== 'APPLY') return
      const call = parseCall(message)
      this.calls.push(call)
      this.onCall(call)
    })
    ocallsInside.onMessage((message) => this.replies.push(message))
  }

  ready(): void {
    this.inside.ecalls.post(encodeLifecycle({ type: 'READY' }).message)
  }

  fail(code: ErrorCode): void {
    this.inside.ecalls.post(encodeLifecycle({ type: 'FAILED', code }).message)
  }

  reply(id: CallId, value: unknown): void {
    this.inside.ecalls.post(encodeReply(id, value).message)
  }

  refuse(id: CallId, error: unknown): void {
    this.inside.ecalls.post(encodeRefusal(id, error).message)
  }

  die(reason = 'killed'): void {
    this.#exit({ reason })
  }

  terminate(): Promise<void> {
    this.terminateCount++
    this.die('terminated')
    return Promise.resolve()
  }

  kill(): Promise<void> {
    this.die()
    return Promise.resolve()
  }
}

/** Launches scripted enclaves; `begin` says how each of them starts. */
export class ScriptedPlatform implements Platform {
  readonly publicKey: Bytes = allocate(32)
  readonly launched: ScriptedEnclave[] = []
  begin: (enclave: ScriptedEnclave, index: number) => void

  constructor(begin: (enclave: ScriptedEnclave, index: number) => void = (enclave) => enclave.ready()) {
    this.begin = begin
  }

  /** The newest. */
  get enclave(): ScriptedEnclave {
    const newest = this.launched.at(-1)
    if (newest === undefined) throw new Error('nothing was launched')
    return newest
  }

  launch(): Instance {
    const enclave = new ScriptedEnclave()
    this.launched.push(enclave)
    this.begin(enclave, this.launched.length - 1)
    return enclave
  }
}

/** An image of which only the manifest counts. */
export const scriptedImage = (manifest: { ecalls?: readonly string[]; ocalls?: readonly string[] } = {}): Image => ({
  manifest: {
    format: 'keyrise-image/2',
    name: 'scripted',
    svn: 1,
    debug: false,
    ecalls: (manifest.ecalls ?? ['echo']).map((name) => ({
      name,
      receives: false,
      yields: false,
      switchless: false,
      ocalls: [],
      limits: {},
    })),
    ocalls: (manifest.ocalls ?? []).map((name) => ({ name, yields: false, limits: {} })),
    refusals: [],
  },
  source: '',
  measurement: allocate(32),
})

/** A KMS that answers every frame with itself. */
export const echoKms: KmsLink = {
  identity: allocate(32),
  exchange: (frame) => Promise.resolve(frame),
  close: () => Promise.resolve(),
  [Symbol.asyncDispose]: () => Promise.resolve(),
}
