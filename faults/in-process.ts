import { Buffer } from 'node:buffer'
import type { EnclaveDefinition, EcallDeclaration } from '../protocol/contract.js'
import { declaredCalls } from '../protocol/declared-calls.js'
import { isKeyriseError, KeyriseError } from '../protocol/errors.js'
import type { Clock, Store } from '../protocol/ports.js'
import { sha256 } from '../protocol/sha256.js'
import { launch, type EnclaveHandle, type LaunchLimits, type LaunchOptions } from '../host/launch.js'
import type { EnclaveEvent } from '../host/supervisor.js'
import type { OpenedFlow } from '../enclave/flow.js'
import type { Image } from '../platform/image.js'
import { MemoryStore } from '../storage/index.js'
import { startInProcessKms, type InProcessKms } from './in-process-kms.js'
import { InProcessPlatform, type OpenPorts } from './in-process-platform.js'

/**
 * The test kit: an enclave module's definition runs in this very thread, under a debugger or a coverage tool, through the same
 * gate, schemas, limits, flow, recovery and supervisor as in an enclave. Nothing is isolated or hardened, nothing is measured:
 * it is for tests alone, beside some that launch the image itself.
 */
export type InProcessOptions<Definition> = Pick<LaunchOptions<Definition>, 'ocalls'> & {
  /** Where sealed state goes; a `MemoryStore` of its own unless told. Pass one, and `kms`, to open a flow again. */
  readonly store?: Store
  /** A KMS of its own unless told: pass one for several members of a task. */
  readonly kms?: InProcessKms
  /** `flow` unless told. */
  readonly flow?: string
  readonly task?: string
  /** As of `launch`, but for deadlines of calls, which a breakpoint would outlast: a day. */
  readonly limits?: Partial<LaunchLimits>
  readonly onEvent?: (event: EnclaveEvent) => void
  /** Called with what a handler throws, of which the caller learns a code only. Printed on standard error unless told. */
  readonly onError?: (error: unknown) => void
  /** Of host and enclave; the system’s unless told. */
  readonly clock?: Clock
  /** Called with the flow that an instance has opened. @internal */
  readonly onOpened?: (opened: OpenedFlow) => void
  /** Makes the channels to each instance. @internal */
  readonly openPorts?: OpenPorts
}

export interface InProcessEnclave<Definition> extends EnclaveHandle<Definition> {
  /**
   * Drops the running instance as a power cut would, without wiping: calls in flight reject with ERR_ENCLAVE_LOST, what it had
   * not committed is lost, and the next call waits for an instance that has recovered. What its code still does in this thread
   * reaches nobody.
   */
  crash(): Promise<void>
}

const DAY_MS = 24 * 60 * 60 * 1000
const PATIENT = { launchDeadlineMs: DAY_MS, callDeadlineMs: DAY_MS, relaunchDeadlineMs: DAY_MS } as const

/**
 * Runs the default export of an enclave module in this thread.
 * @throws {KeyriseError} ERR_CONFIG_INVALID: it is not one; ERR_OCALL_UNKNOWN; why the flow does not open.
 */
export const launchInProcess = async <Definition extends EnclaveDefinition>(
  definition: Definition,
  options: InProcessOptions<Definition>,
): Promise<InProcessEnclave<Definition>> => {
  const image = describedImage(definition)
  const kms = options.kms ?? (await startInProcessKms())
  kms.allow({ name: image.manifest.name, measurement: image.measurement })
  const { ocalls, task, onEvent, limits, clock, onOpened, openPorts } = options
  const platform = new InProcessPlatform(kms.platform, watched(definition, options.onError ?? printError), {
    ...(clock === undefined ? {} : { clock }),
    ...(onOpened === undefined ? {} : { onOpened }),
    ...(openPorts === undefined ? {} : { openPorts }),
  })
  const closeKms = async (): Promise<void> => {
    if (options.kms === undefined) await kms.close()
  }
  const handle = await launch({
    image,
    platform,
    kms,
    store: options.store ?? new MemoryStore(),
    flow: options.flow ?? 'flow',
    limits: { ...PATIENT, ...limits },
    ...(ocalls === undefined ? {} : { ocalls }),
    ...(task === undefined ? {} : { task }),
    ...(onEvent === undefined ? {} : { onEvent }),
    ...(clock === undefined ? {} : { clock }),
  } as unknown as LaunchOptions<Definition>).catch(async (error: unknown) => {
    await closeKms()
    throw error
  })
  const close = async (): Promise<void> => {
    await handle.close()
    await closeKms()
  }
  // Its own members, whatever they are, with another way to close and a way to crash.
  return Object.defineProperties({} as InProcessEnclave<Definition>, {
    ...Object.getOwnPropertyDescriptors(handle),
    close: { value: close, enumerable: true },
    crash: { value: () => platform.crash(), enumerable: true },
    [Symbol.asyncDispose]: { value: close },
  })
}

/** What an image of the module would say of itself. Its digest stands for the measurement: code that differs in no declaration has the same. */
export const describedImage = <Definition extends EnclaveDefinition>(definition: Definition): Image<Definition> => {
  if (typeof (definition as Partial<Definition>).ecalls !== 'object')
    throw new KeyriseError('ERR_CONFIG_INVALID', { detail: 'the definition is not what defineEnclave(…) returns' })
  const { name, svn, refusals } = definition
  const manifest = {
    format: 'keyrise-image/2',
    name,
    svn,
    debug: true,
    ...declaredCalls(definition),
    refusals: Object.keys(refusals).sort(),
  } as const
  return { manifest, source: '', measurement: sha256(Buffer.from(JSON.stringify(manifest))) }
}

const printError = (error: unknown): void => {
  process.stderr.write(`in the enclave: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`)
}

/** The same, but what its handlers throw is told to `tell` first, except refusals, which are answers. */
const watched = (definition: EnclaveDefinition, tell: (error: unknown) => void): EnclaveDefinition => ({
  ...definition,
  ecalls: Object.fromEntries(
    Object.entries(definition.ecalls).map(([name, declaration]) => [name, watchedEcall(declaration, tell)]),
  ),
})

type Handle = (context: unknown, input: unknown) => unknown

const watchedEcall = (declaration: EcallDeclaration, tell: (error: unknown) => void): EcallDeclaration => {
  const handle = declaration.handle as Handle
  const fail = (error: unknown): never => {
    if (!isKeyriseError(error, 'ERR_APPLICATION')) tell(error)
    throw error
  }
  const watchedHandle: Handle = (context, input) => {
    try {
      const result = handle(context, input)
      if (result instanceof Promise) return result.catch(fail)
      return isAsyncIterable(result) ? watchedItems(result, fail) : result
    } catch (error) {
      return fail(error)
    }
  }
  return { ...declaration, handle: watchedHandle }
}

const isAsyncIterable = (value: unknown): value is AsyncIterable<unknown> =>
  typeof value === 'object' && value !== null && Symbol.asyncIterator in value

async function* watchedItems(items: AsyncIterable<unknown>, fail: (error: unknown) => never): AsyncGenerator {
  try {
    yield* items
  } catch (error) {
    fail(error)
  }
}
