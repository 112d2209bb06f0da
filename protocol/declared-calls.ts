import { isCallName } from './calls.js'
import { FieldReader } from './check.js'
import type { EcallDeclaration, EcallLimits, EnclaveDefinition, OcallDeclaration, OcallLimits } from './contract.js'
import type { ErrorCode } from './errors.js'
import { CALLS_IN_FLIGHT_MAX, MESSAGE_SIZE_BYTES_MAX, OCALL_DEADLINE_MS_MAX, OCALLS_PER_SECOND_MAX } from './limits.js'

/**
 * What a definition says about its calls, as plain data: an image's manifest carries it, and a host makes its stubs of it.
 * Limits that are not declared are left out.
 */
export interface DeclaredEcall {
  readonly name: string
  /** The host streams items in. */
  readonly receives: boolean
  /** It streams items out; otherwise it has one reply. */
  readonly yields: boolean
  /** It may also be called synchronously. */
  readonly switchless: boolean
  /** The OCALLs that it may make, sorted. */
  readonly ocalls: readonly string[]
  readonly limits: EcallLimits
}

export interface DeclaredOcall {
  readonly name: string
  /** The host streams items in; otherwise it has one reply. */
  readonly yields: boolean
  readonly limits: OcallLimits
}

/** Both sorted by name. */
export interface DeclaredCalls {
  readonly ecalls: readonly DeclaredEcall[]
  readonly ocalls: readonly DeclaredOcall[]
}

/** What each limit may be at most, in the order in which they are listed. */
export const ECALL_LIMIT_CAPS = {
  inputSizeBytesMax: MESSAGE_SIZE_BYTES_MAX,
  outputSizeBytesMax: MESSAGE_SIZE_BYTES_MAX,
  inFlightMax: CALLS_IN_FLIGHT_MAX,
} as const satisfies Required<EcallLimits>
export const OCALL_LIMIT_CAPS = {
  inputSizeBytesMax: MESSAGE_SIZE_BYTES_MAX,
  outputSizeBytesMax: MESSAGE_SIZE_BYTES_MAX,
  perSecondMax: OCALLS_PER_SECOND_MAX,
  deadlineMs: OCALL_DEADLINE_MS_MAX,
} as const satisfies Required<OcallLimits>

/** True for a whole number from 1 to `cap`. */
export const isLimit = (claimed: unknown, cap: number): boolean =>
  Number.isSafeInteger(claimed) && (claimed as number) >= 1 && (claimed as number) <= cap

/** Describes the calls of a checked definition. */
export const declaredCalls = ({ ecalls, ocalls }: EnclaveDefinition): DeclaredCalls => ({
  ecalls: byName(ecalls).map(([name, declaration]) => declaredEcall(name, declaration)),
  ocalls: byName(ocalls).map(([name, declaration]) => declaredOcall(name, declaration)),
})

const byName = <T>(table: Readonly<Record<string, T>>): [string, T][] =>
  Object.entries(table).sort(([a], [b]) => (a < b ? -1 : 1))

const declaredEcall = (name: string, declaration: EcallDeclaration): DeclaredEcall => ({
  name,
  receives: declaration.receives !== undefined,
  yields: declaration.yields !== undefined,
  switchless: declaration.switchless === true,
  ocalls: Object.keys(declaration.ocalls ?? {}).sort(),
  limits: declaredLimits(declaration.limits, ECALL_LIMIT_CAPS),
})

const declaredOcall = (name: string, declaration: OcallDeclaration): DeclaredOcall => ({
  name,
  yields: declaration.yields !== undefined,
  limits: declaredLimits(declaration.limits, OCALL_LIMIT_CAPS),
})

/** In the order of `caps`, so that one declaration has one description. */
const declaredLimits = <Limits extends object>(
  limits: Limits | undefined,
  caps: Readonly<Record<string, number>>,
): Limits => {
  const given = (limits ?? {}) as Readonly<Record<string, unknown>>
  return Object.fromEntries(
    Object.keys(caps)
      .map((limit) => [limit, given[limit]] as const)
      .filter(([, value]) => value !== undefined),
  ) as Limits
}

/**
 * Reads what `declaredCalls` gave, from a manifest that may be anybody's.
 * @throws {KeyriseError} `code`.
 */
export const readDeclaredEcall = (claimed: unknown, code: ErrorCode): DeclaredEcall => {
  const fields = new FieldReader(claimed, ['name', 'receives', 'yields', 'switchless', 'ocalls', 'limits'], code)
  return {
    name: readName(fields, fields.claimed('name')),
    receives: fields.flag('receives'),
    yields: fields.flag('yields'),
    switchless: fields.flag('switchless'),
    ocalls: fields.list('ocalls', DECLARED_COUNT_MAX, (name) => readName(fields, name)),
    limits: readLimits(fields.claimed('limits'), ECALL_LIMIT_CAPS, code),
  }
}

/** @throws {KeyriseError} `code`. */
export const readDeclaredOcall = (claimed: unknown, code: ErrorCode): DeclaredOcall => {
  const fields = new FieldReader(claimed, ['name', 'yields', 'limits'], code)
  return {
    name: readName(fields, fields.claimed('name')),
    yields: fields.flag('yields'),
    limits: readLimits(fields.claimed('limits'), OCALL_LIMIT_CAPS, code),
  }
}

/** ECALLs, OCALLs or refusals of one image. */
export const DECLARED_COUNT_MAX = 256

const readName = (fields: FieldReader, claimed: unknown): string =>
  isCallName(claimed) ? claimed : fields.refuse('a name')

const readLimits = (claimed: unknown, caps: Readonly<Record<string, number>>, code: ErrorCode): object => {
  const fields = new FieldReader(claimed, Object.keys(caps), code)
  return Object.fromEntries(
    Object.entries(caps)
      .filter(([limit]) => fields.claimed(limit) !== undefined)
      .map(([limit, cap]) => [limit, fields.count(limit, cap, 1)]),
  )
}
