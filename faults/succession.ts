import { encodeRequest, type Approved, type ApprovalRequest } from '../kms/approvals.js'
import type { Policy, PolicyImage } from '../kms/policy.js'
import { toHex } from '../protocol/bytes.js'
import { ed25519Signer, type KeyPairSigner } from '../protocol/crypto/keys.js'
import { Secret } from '../protocol/crypto/secret.js'
import { parseFlowId } from '../protocol/names.js'
import { describedImage } from './in-process.js'
import type { Scenario } from './scenario.js'
import { SeededRandom } from './seeded-random.js'

/** Which images a scenario’s KMS admits, and which of them may take a flow over from another, with the approval that it takes. */
export class Succession implements Disposable {
  readonly #scenario: Scenario
  readonly #approver: KeyPairSigner = signerOf('approver')

  constructor(scenario: Scenario) {
    this.#scenario = scenario
  }

  /** Of all images of the scenario; an approver where one is newer than another. */
  policy(platform: Uint8Array): Policy {
    const images = new Map<string, PolicyImage>()
    for (const { enclave, successor } of Object.values(this.#scenario.flows))
      for (const each of successor === undefined ? [enclave] : [enclave, successor.enclave]) {
        const { manifest, measurement } = describedImage(each)
        images.set(toHex(measurement), { name: manifest.name, measurement })
      }
    const approvers = this.#pairs.length === 0 ? {} : { approvers: [{ name: 'anna', key: this.#approver.publicKey }] }
    return { platforms: [platform], images: [...images.values()], allowDebug: true, ...approvers }
  }

  /** What is approved, for the KMS of this identity: the same each time. */
  grants(identity: Uint8Array): readonly Approved[] {
    return this.#pairs.map(({ flow, from, to }) => {
      const request: ApprovalRequest = {
        kind: 'migration',
        kms: new Uint8Array(identity),
        flows: [flow],
        from: describedImage(from).measurement,
        to: { measurement: describedImage(to).measurement },
        notAfterMs: Date.UTC(2100, 0, 1),
      }
      const { publicKey: key } = this.#approver
      return { request, approvals: [{ key, signature: this.#approver.sign(encodeRequest(request)) }] }
    })
  }

  [Symbol.dispose](): void {
    this.#approver[Symbol.dispose]()
  }

  get #pairs() {
    return Object.entries(this.#scenario.flows).flatMap(([flow, { enclave: from, successor }]) =>
      successor === undefined ? [] : [{ flow: parseFlowId(flow), from, to: successor.enclave }],
    )
  }
}

const signerOf = (name: string): KeyPairSigner =>
  ed25519Signer(Secret.take(new SeededRandom(name).fill(new Uint8Array(32))))
