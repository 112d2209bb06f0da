import type { StandardSchemaV1 } from '@standard-schema/spec'
import { isCallName } from '../protocol/calls.js'
import type {
  EcallDeclaration,
  EcallLimits,
  EnclaveDefinition,
  Flow,
  Migrate,
  OcallDeclaration,
  OcallLimits,
} from '../protocol/contract.js'
import { ECALL_LIMIT_CAPS, isLimit, OCALL_LIMIT_CAPS } from '../protocol/declared-calls.js'
import { KeyriseError } from '../protocol/errors.js'
import type { CancelSignal } from '../protocol/ports.js'

/** An OCALL as the enclave calls it: the argument as its schema takes it, the host's answer as its schema gives it. */
export type OcallFunctions<Ocalls> = {
  readonly [Name in keyof Ocalls]: Ocalls[Name] extends { readonly input: infer Input extends StandardSchemaV1 }
    ? (input: StandardSchemaV1.InferInput<Input>) => OcallAnswer<Ocalls[Name]>
    : never
}

type OcallAnswer<D> = D extends { readonly yields: infer Yields extends StandardSchemaV1 }
  ? AsyncIterableIterator<StandardSchemaV1.InferOutput<Yields>>
  : D extends { readonly output: infer Output extends StandardSchemaV1 }
    ? Promise<StandardSchemaV1.InferOutput<Output>>
    : never

/** What every ECALL gets beside its input. */
export interface EcallContext<Ocalls = Record<never, never>, Receives = undefined> {
  readonly flow: Flow
  /** Those that the ECALL declares, and no others. */
  readonly ocalls: OcallFunctions<Ocalls>
  /** Aborted, with ERR_CANCELLED, when the host gives the call up. Only the handler can end its own work. */
  readonly signal: CancelSignal
  /** What the host streams in, each item parsed, where the ECALL declares `receives`. It can be read once. */
  readonly items: Receives extends StandardSchemaV1
    ? AsyncIterableIterator<StandardSchemaV1.InferOutput<Receives>>
    : undefined
}

/** A schema that is declared, or none. */
type Optional = StandardSchemaV1 | undefined

export interface Ecall<
  Input extends StandardSchemaV1 = StandardSchemaV1,
  Output extends Optional = undefined,
  Receives extends Optional = undefined,
  Yields extends Optional = undefined,
  Switchless extends boolean = false,
> extends EcallDeclaration {
  readonly input: Input
  readonly output: Output
  readonly receives: Receives
  readonly yields: Yields
  readonly switchless: Switchless
}

type Taken<Schema extends StandardSchemaV1> = StandardSchemaV1.InferInput<Schema>
type Given<Schema extends StandardSchemaV1> = StandardSchemaV1.InferOutput<Schema>

/** Of an ECALL that may also be called synchronously: it has no OCALLs and no streams. */
interface SwitchlessDeclaration<Input, Output> {
  readonly input: Input
  readonly output: Output
  readonly switchless: true
  readonly limits?: EcallLimits
  readonly receives?: never
  readonly yields?: never
  readonly ocalls?: never
}

/** Of an ECALL with one reply. */
interface ReplyDeclaration<Input, Output, Receives, Ocalls> {
  readonly input: Input
  readonly output: Output
  readonly receives?: Receives
  readonly ocalls?: Ocalls
  readonly limits?: EcallLimits
  readonly yields?: never
  readonly switchless?: never
}

/** Of an ECALL that streams its answer. */
interface YieldsDeclaration<Input, Yields, Receives, Ocalls> {
  readonly input: Input
  readonly yields: Yields
  readonly receives?: Receives
  readonly ocalls?: Ocalls
  readonly limits?: EcallLimits
  readonly output?: never
  readonly switchless?: never
}

/**
 * Declares a call into the enclave. `handler` gets the parsed input and returns what `output` parses; a value that does
 * not match either schema never crosses.
 * @param declaration.receives - the host streams items in: `context.items`.
 * @param declaration.yields - instead of `output`: the handler is an (async) generator, or returns an iterable.
 * @param declaration.switchless - the host may also call it synchronously; the handler and both schemas answer at once.
 * @param declaration.ocalls - the OCALLs that the handler makes; also list them in `defineEnclave`.
 */
export function ecall<Input extends StandardSchemaV1, Output extends StandardSchemaV1>(
  declaration: SwitchlessDeclaration<Input, Output>,
  handler: (context: EcallContext, input: Given<Input>) => Taken<Output>,
): Ecall<Input, Output, undefined, undefined, true>
export function ecall<
  Input extends StandardSchemaV1,
  Yields extends StandardSchemaV1,
  Receives extends Optional = undefined,
  Ocalls extends Record<string, OcallDeclaration> = Record<never, never>,
>(
  declaration: YieldsDeclaration<Input, Yields, Receives, Ocalls>,
  handler: (
    context: EcallContext<Ocalls, Receives>,
    input: Given<Input>,
  ) => AsyncIterable<Taken<Yields>> | Iterable<Taken<Yields>>,
): Ecall<Input, undefined, Receives, Yields>
export function ecall<
  Input extends StandardSchemaV1,
  Output extends StandardSchemaV1,
  Receives extends Optional = undefined,
  Ocalls extends Record<string, OcallDeclaration> = Record<never, never>,
>(
  declaration: ReplyDeclaration<Input, Output, Receives, Ocalls>,
  handler: (context: EcallContext<Ocalls, Receives>, input: Given<Input>) => Taken<Output> | Promise<Taken<Output>>,
): Ecall<Input, Output, Receives>
export function ecall(
  declaration: Omit<EcallDeclaration, 'handle'>,
  handle: (context: never, input: never) => unknown,
): unknown {
  return { ...declaration, handle }
}

export interface Ocall<
  Input extends StandardSchemaV1 = StandardSchemaV1,
  Output extends Optional = undefined,
  Yields extends Optional = undefined,
> extends OcallDeclaration {
  readonly input: Input
  readonly output: Output
  readonly yields: Yields
}

/**
 * Declares a call out of the enclave, which the host implements. Its answer is hostile: `output` is what it must be, or
 * `yields` what each item of a stream must be.
 */
export function ocall<Input extends StandardSchemaV1, Output extends StandardSchemaV1>(declaration: {
  readonly input: Input
  readonly output: Output
  readonly limits?: OcallLimits
  readonly yields?: never
}): Ocall<Input, Output>
export function ocall<Input extends StandardSchemaV1, Yields extends StandardSchemaV1>(declaration: {
  readonly input: Input
  readonly yields: Yields
  readonly limits?: OcallLimits
  readonly output?: never
}): Ocall<Input, undefined, Yields>
export function ocall(declaration: OcallDeclaration): unknown {
  return { ...declaration }
}

/**
 * Refuses the call for one of the reasons that `defineEnclave({ refusals })` declares. The host gets ERR_APPLICATION with
 * the reason and its declared text.
 */
export const refuse = (reason: string): never => {
  throw new KeyriseError('ERR_APPLICATION', { reason })
}

/**
 * Defines an enclave: the default export of its module.
 * @param definition.migrate - says what of an older image’s flow this one goes on with; all of it unless told.
 * @throws {KeyriseError} ERR_CONFIG_INVALID when a name is not one, a field or a limit of a declaration is not allowed, or an
 * ECALL uses an OCALL that is not listed.
 */
export const defineEnclave = <
  Ecalls extends Record<string, EcallDeclaration>,
  Ocalls extends Record<string, OcallDeclaration> = Record<never, never>,
>(definition: {
  readonly name: string
  readonly svn: number
  readonly ecalls: Ecalls
  readonly ocalls?: Ocalls
  readonly refusals?: Readonly<Record<string, string>>
  readonly migrate?: Migrate
}): EnclaveDefinition<Ecalls, Ocalls> => {
  const { name, svn, ecalls, refusals = {} } = definition
  const ocalls = (definition.ocalls ?? {}) as Ocalls
  for (const called of [name, ...Object.keys(ecalls), ...Object.keys(ocalls), ...Object.keys(refusals)])
    if (!isCallName(called)) invalid(`the name ${String(called)}`)
  if (!Number.isSafeInteger(svn) || svn < 0) invalid('svn')
  for (const [called, declaration] of Object.entries(ocalls)) checkOcall(called, declaration)
  for (const [called, declaration] of Object.entries(ecalls)) checkEcall(called, declaration, ocalls)
  const { migrate } = definition
  if (migrate !== undefined && typeof migrate !== 'function') invalid('migrate is a function, or left out')
  return { name, svn, ecalls, ocalls, refusals, ...(migrate === undefined ? {} : { migrate }) }
}

const invalid = (detail: string): never => {
  throw new KeyriseError('ERR_CONFIG_INVALID', { detail })
}

const ECALL_FIELDS = ['input', 'output', 'receives', 'yields', 'switchless', 'limits', 'ocalls', 'handle']
const OCALL_FIELDS = ['input', 'output', 'yields', 'limits']

const checkEcall = (
  name: string,
  declaration: EcallDeclaration,
  ocalls: Readonly<Record<string, OcallDeclaration>>,
): void => {
  checkFields(`the ECALL ${name}`, declaration, ECALL_FIELDS)
  const { receives, yields, switchless, limits, handle } = declaration
  if (typeof handle !== 'function') invalid(`the ECALL ${name} has no handler`)
  if (receives !== undefined) checkSchema(`receives of the ECALL ${name}`, receives)
  checkLimits(`the ECALL ${name}`, limits, ECALL_LIMIT_CAPS)
  const used = Object.entries(declaration.ocalls ?? {})
  for (const [called, use] of used)
    if (!Object.hasOwn(ocalls, called) || ocalls[called] !== use) invalid(`the OCALL ${called} is used but not listed`)
  if (switchless === undefined) return
  if (!switchless) invalid(`switchless of the ECALL ${name} is true, or left out`)
  if (receives !== undefined || yields !== undefined || used.length > 0)
    invalid(`the ECALL ${name} is switchless: it has no streams and no OCALLs`)
}

const checkOcall = (name: string, declaration: OcallDeclaration): void => {
  checkFields(`the OCALL ${name}`, declaration, OCALL_FIELDS)
  checkLimits(`the OCALL ${name}`, declaration.limits, OCALL_LIMIT_CAPS)
}

/** A field that is misspelt would be a limit that does not limit. */
const checkFields = (
  what: string,
  declaration: EcallDeclaration | OcallDeclaration,
  allowed: readonly string[],
): void => {
  for (const field of Object.keys(declaration)) if (!allowed.includes(field)) invalid(`${what} has a field ${field}`)
  const { input, output, yields } = declaration
  checkSchema(`input of ${what}`, input)
  if ((output === undefined) === (yields === undefined)) invalid(`${what} has an output or yields items`)
  checkSchema(`the answer of ${what}`, output ?? yields)
}

const checkSchema = (what: string, schema: StandardSchemaV1 | undefined): void => {
  if (typeof schema?.['~standard']?.validate !== 'function') invalid(`${what} is no Standard Schema`)
}

const checkLimits = (what: string, limits: object | undefined, caps: Readonly<Record<string, number>>): void => {
  for (const [limit, value] of Object.entries(limits ?? {}) as [string, unknown][]) {
    if (!Object.hasOwn(caps, limit)) invalid(`${what} has a limit ${limit}`)
    if (!isLimit(value, caps[limit] ?? 0)) invalid(`the limit ${limit} of ${what}`)
  }
}
