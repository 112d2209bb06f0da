import type { AddressInfo } from 'node:net'
import { copyBytes, type Bytes } from '../protocol/bytes.js'
import { KeyriseError } from '../protocol/errors.js'
import { nodeRandom } from '../protocol/crypto/primitives.js'
import { Secret } from '../protocol/crypto/secret.js'
import { nodeClock, nodeFileSystem } from '../storage/index.js'
import { AdminDesk } from './admin-desk.js'
import { adminSocketPath, listenOnSocket } from './admin-socket.js'
import { KmsControl, type KmsControlOptions } from './control.js'
import { FrontDesk } from './front-desk.js'
import { closeServer, listen, makeServer } from './http-listener.js'
import { placeOf, type KmsIdentity } from './place.js'
import type { Policy } from './policy.js'
import type { KmsEvent } from './service.js'
import type { Verifier } from './verifier.js'

export interface ServeOptions {
  /** Where the KMS keeps its ledger and, unless `custody` is given, its keyring. */
  readonly directory: string
  /** The keyring’s file in a third place. */
  readonly custody?: string
  /** Of the keyring; borrowed: zero-fill it when the promise has settled. Without it the KMS starts sealed. */
  readonly passphrase?: Uint8Array
  readonly policy: Policy
  /** A loopback address; 127.0.0.1 unless told. */
  readonly host?: string
  /** 7600 unless told; 0 for any free one. */
  readonly port?: number
  /** The admin surface’s socket; `admin.sock` in the directory unless told. */
  readonly adminSocket?: string
  /** Of formats of evidence that the policy lists beside `simulated` and `nitro`, or in their place: docs/attestation.md. */
  readonly verifiers?: readonly Verifier[]
  /** For the operator’s log. */
  readonly onEvent?: (event: KmsEvent) => void
}

export interface ServedKms extends KmsIdentity, AsyncDisposable {
  /** `http://127.0.0.1:7600` */
  readonly url: string
  readonly isSealed: boolean
  /** Stops listening, answers what is under way, zero-fills every key. */
  close(): Promise<void>
  /** Zero-fills every secret that this process holds: for one that is about to end by a fault. */
  wipe(): void
}

const LOOPBACK = ['127.0.0.1', '::1', 'localhost']
const PORT = 7600

/**
 * Opens a KMS and serves it over HTTP: enclaves on loopback, its operators on a unix socket. The port comes first, so that a
 * second start by mistake is refused before it touches the ledger.
 * @throws {KeyriseError} ERR_ADDRESS_REFUSED, ERR_PORT_IN_USE, and as `openKms`.
 */
export const serveKms = async (options: ServeOptions): Promise<ServedKms> => {
  const { directory, host = '127.0.0.1', port = PORT, adminSocket = adminSocketPath(directory) } = options
  if (!LOOPBACK.includes(host)) throw new KeyriseError('ERR_ADDRESS_REFUSED', { detail: host })
  const [desk, adminDesk] = [new FrontDesk(), new AdminDesk()]
  const server = makeServer((request, response) => desk.answer(request, response))
  await listen(server, { host, port }, `${host}:${String(port)}`)
  try {
    const control = await openControl(options)
    try {
      const adminServer = makeServer((request, response) => adminDesk.answer(request, response))
      const closeAdmin = await listenOnSocket(adminServer, adminSocket)
      desk.control = adminDesk.control = control
      const close = async (): Promise<void> => {
        desk.control = adminDesk.control = undefined
        await Promise.all([closeServer(server), closeAdmin()])
        await control.close()
      }
      const url = `http://${host === '::1' ? '[::1]' : host}:${String((server.address() as AddressInfo).port)}`
      return served(control, url, close)
    } catch (error) {
      await control.close()
      throw error
    }
  } catch (error) {
    await closeServer(server)
    throw error
  }
}

const openControl = ({
  directory,
  custody,
  policy,
  passphrase,
  verifiers = [],
  onEvent,
}: ServeOptions): Promise<KmsControl> => {
  const options: KmsControlOptions = {
    place: placeOf({ directory, custody }),
    policy,
    fs: nodeFileSystem,
    clock: nodeClock,
    random: nodeRandom,
    verifiers,
    ...(onEvent === undefined ? {} : { onEvent }),
  }
  return passphrase === undefined
    ? KmsControl.sealed(options)
    : KmsControl.unlocked(options, Secret.take(copyBytes(passphrase)))
}

const served = (control: KmsControl, url: string, close: () => Promise<void>): ServedKms => ({
  url,
  get identity(): Bytes {
    return control.status().identity
  },
  get keys() {
    return control.status().keys
  },
  get isSealed() {
    return control.kms === undefined
  },
  close,
  wipe: () => control.wipe(),
  [Symbol.asyncDispose]: close,
})
