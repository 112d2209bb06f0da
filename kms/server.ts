import { Server as TlsServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { copyBytes, type Bytes } from '../protocol/bytes.js'
import { KeyriseError } from '../protocol/errors.js'
import { nodeRandom } from '../protocol/crypto/primitives.js'
import { Secret } from '../protocol/crypto/secret.js'
import { nodeClock, nodeFileSystem } from '../storage/index.js'
import { AdminDesk } from './admin-desk.js'
import { adminSocketPath, listenOnSocket } from './admin-socket.js'
import { tokenAnswer } from './admin-token.js'
import { KmsControl, type KmsControlOptions } from './control.js'
import { FrontDesk } from './front-desk.js'
import { closeServer, listen, makeServer, type Answer, type HttpServer, type Watch } from './http-listener.js'
import { entryOfEvent, entryOfRequest, type LogEntry } from './log-entry.js'
import { Metrics, type Surface } from './metrics.js'
import { placeOf, type KmsIdentity } from './place.js'
import type { Policy } from './policy.js'
import { openStores, type RegisteredStores } from './registered-stores.js'
import type { KmsEvent } from './service.js'
import type { Verifier } from './verifier.js'
import { checkTls, type ListenerTls, type ServeTls } from './tls.js'

export interface ServeOptions {
  /** Where the KMS keeps its ledger and, unless `custody` is given, its keyring. */
  readonly directory: string
  /** The keyring’s file in a third place. */
  readonly custody?: string
  /** Of the keyring; borrowed: zero-fill it when the promise has settled. Without it the KMS starts sealed. */
  readonly passphrase?: Uint8Array
  readonly policy: Policy
  /** Reads the policy again, for `POST /v1/policy/reload`; without it the policy is the one above. */
  readonly readPolicy?: () => Promise<Policy>
  /** For enclaves; 127.0.0.1 unless told. */
  readonly host?: string
  /** 7600 unless told; 0 for any free one. */
  readonly port?: number
  /** TLS 1.3 with client certificates on the enclaves’ surface; any address is allowed with it. */
  readonly tls?: ServeTls
  /** Plain HTTP on a loopback address instead: must be chosen where `tls` is not given. What is secret is sealed without TLS, too. */
  readonly insecureLoopback?: boolean
  /** A second way to the admin surface, with TLS. */
  readonly adminTls?: AdminAddress
  /** The admin surface’s socket; `admin.sock` in the directory unless told. */
  readonly adminSocket?: string
  /** Stores that it rewraps by itself after a rotation, by id. */
  readonly stores?: RegisteredStores
  /** Of formats of evidence that the policy lists beside `simulated` and `nitro`, or in their place: docs/attestation.md. */
  readonly verifiers?: readonly Verifier[]
  /** For the operator’s log. */
  readonly onEvent?: (event: KmsEvent) => void
  /** The same and more: every request with what came of it, and every fault. */
  readonly onLog?: (entry: LogEntry) => void
}

/** Who may use it has a certificate of `clientCa`, or shows `token`: one of the two is given. */
export type AdminAddress = ListenerTls & {
  readonly host: string
  readonly port: number
  /** 32 to 1024 characters as RFC 6750 has them, sent as `authorization: Bearer …`. Borrowed: zero-fill it when the KMS listens. */
  readonly token?: Uint8Array
}

export interface ServedKms extends KmsIdentity, AsyncDisposable {
  /** `https://kms.example:7600`, or `http://127.0.0.1:7600` */
  readonly url: string
  /** Where the admin surface has an address, too. */
  readonly adminUrl: string | undefined
  readonly isSealed: boolean
  /** Stops listening, answers what is under way, zero-fills every key. */
  close(): Promise<void>
  /** Zero-fills every secret that this process holds: for one that is about to end by a fault. */
  wipe(): void
}

const LOOPBACK = ['127.0.0.1', '::1', 'localhost']
const PORT = 7600

/**
 * Opens a KMS and serves it over HTTP: enclaves with TLS, or without on loopback, its operators on a unix socket. The port comes
 * first, so that a second start by mistake is refused before it touches the ledger.
 * @throws {KeyriseError} ERR_CONFIG_INVALID, ERR_ADDRESS_REFUSED, ERR_PORT_IN_USE, and as `openKms`.
 */
export const serveKms = async (options: ServeOptions): Promise<ServedKms> => {
  const { directory, host = '127.0.0.1', port = PORT, tls, adminTls } = options
  checkSurfaces(options, host)
  const [desk, adminDesk, metrics] = [new FrontDesk(), new AdminDesk(), new Metrics()]
  const answer: Answer = (...asked) => desk.answer(...asked)
  const answerAdmin: Answer = (...asked) => adminDesk.answer(...asked)
  const watch = (surface: Surface): Watch => watchOf(surface, metrics, options.onLog)
  const closings: (() => Promise<void>)[] = []
  const closeListeners = async (): Promise<void> => {
    await Promise.all(closings.map((close) => close()))
  }
  const start = async (server: HttpServer, at: { host: string; port: number }): Promise<string> => {
    await listen(server, { host: at.host, port: at.port }, `${at.host}:${String(at.port)}`)
    closings.push(() => closeServer(server))
    return urlOf(server, at.host)
  }
  try {
    const url = await start(makeServer(answer, tls, watch('enclaves')), { host, port })
    const adminUrl =
      adminTls &&
      (await start(makeServer(tokenAnswer(adminTls.token, answerAdmin), adminTls, watch('admin')), adminTls))
    const control = await openControl(options, metrics)
    try {
      closings.push(
        await listenOnSocket(
          makeServer(answerAdmin, undefined, watch('admin')),
          options.adminSocket ?? adminSocketPath(directory),
        ),
      )
      desk.control = adminDesk.control = control
      const close = async (): Promise<void> => {
        desk.control = adminDesk.control = undefined
        await closeListeners()
        await control.close()
      }
      return served(control, { url, adminUrl, close })
    } catch (error) {
      await control.close()
      throw error
    }
  } catch (error) {
    await closeListeners()
    throw error
  }
}

const checkSurfaces = ({ tls, adminTls, insecureLoopback = false }: ServeOptions, host: string): void => {
  if (tls !== undefined) checkTls(tls, 'TLS')
  else if (!LOOPBACK.includes(host)) throw new KeyriseError('ERR_ADDRESS_REFUSED', { detail: host })
  else if (!insecureLoopback)
    throw new KeyriseError('ERR_CONFIG_INVALID', {
      detail:
        'neither TLS (--tls-cert, --tls-key, --client-ca) nor plain HTTP on loopback (--insecure-loopback) is chosen',
    })
  if (adminTls === undefined) return
  checkTls(adminTls, 'TLS of the admin surface')
  if ((adminTls.clientCa === undefined) === (adminTls.token === undefined))
    throw new KeyriseError('ERR_CONFIG_INVALID', {
      detail: 'the admin surface’s address needs an authority for its clients, or a token: one of the two',
    })
}

const urlOf = (server: HttpServer, host: string): string => {
  const scheme = server instanceof TlsServer ? 'https' : 'http'
  return `${scheme}://${host.includes(':') ? `[${host}]` : host}:${String((server.address() as AddressInfo).port)}`
}

const watchOf = (surface: Surface, metrics: Metrics, onLog: ServeOptions['onLog']): Watch => {
  const counted = metrics.watch(surface)
  return {
    began: () => counted.began(),
    ended: (answered) => {
      counted.ended(answered)
      onLog?.(entryOfRequest(surface, answered))
    },
  }
}

const openControl = async (
  { directory, custody, policy, readPolicy, passphrase, verifiers = [], stores = {}, onEvent, onLog }: ServeOptions,
  metrics: Metrics,
): Promise<KmsControl> => {
  const options: KmsControlOptions = {
    place: placeOf({ directory, custody }),
    policy,
    ...(readPolicy === undefined ? {} : { readPolicy }),
    fs: nodeFileSystem,
    clock: nodeClock,
    random: nodeRandom,
    verifiers,
    stores: await openStores(stores, nodeFileSystem),
    metrics,
    onEvent: (event) => {
      onEvent?.(event)
      const entry = entryOfEvent(event)
      if (entry !== undefined) onLog?.(entry)
    },
  }
  return passphrase === undefined
    ? KmsControl.sealed(options)
    : KmsControl.unlocked(options, Secret.take(copyBytes(passphrase)))
}

const served = (
  control: KmsControl,
  { url, adminUrl, close }: Pick<ServedKms, 'url' | 'adminUrl' | 'close'>,
): ServedKms => ({
  url,
  adminUrl,
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
