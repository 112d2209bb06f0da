import type { StandardSchemaV1 } from '@standard-schema/spec'
import type { EcallDeclaration, EnclaveDefinition, Flow, OcallDeclaration } from '../protocol/contract.js'
import { KeyriseError } from '../protocol/errors.js'
import { isCallName } from '../protocol/calls.js'

/** An OCALL as the enclave calls it: the argument as its schema takes it, the host's answer as its schema gives it. */
export type OcallFunctions<Ocalls> = {
  readonly [Name in keyof Ocalls]: Ocalls[Name] extends { readonly input: infer Input; readonly output: infer Output }
    ? Input extends StandardSchemaV1
      ? Output extends StandardSchemaV1
        ? (input: StandardSchemaV1.InferInput<Input>) => Promise<StandardSchemaV1.InferOutput<Output>>
        : never
      : never
    : never
}

/** What every ECALL gets beside its input. */
export interface EcallContext<Ocalls = Record<never, never>> {
  readonly flow: Flow
  /** Those that the ECALL declares, and no others. */
  readonly ocalls: OcallFunctions<Ocalls>
}

export interface Ecall<Input extends StandardSchemaV1, Output extends StandardSchemaV1> extends EcallDeclaration {
  readonly input: Input
  readonly output: Output
}

/**
 * Declares a call into the enclave. `handler` gets the parsed input and returns what `output` parses; a value that does
 * not match either schema never crosses.
 * @param declaration.ocalls - the OCALLs that the handler makes; also list them in `defineEnclave`.
 */
export const ecall = <
  Input extends StandardSchemaV1,
  Output extends StandardSchemaV1,
  Ocalls extends Record<string, OcallDeclaration> = Record<never, never>,
>(
  declaration: { readonly input: Input; readonly output: Output; readonly ocalls?: Ocalls },
  handler: (
    context: EcallContext<Ocalls>,
    input: StandardSchemaV1.InferOutput<Input>,
  ) => StandardSchemaV1.InferInput<Output> | Promise<StandardSchemaV1.InferInput<Output>>,
): Ecall<Input, Output> => ({
  input: declaration.input,
  output: declaration.output,
  ocalls: declaration.ocalls ?? {},
  handle: handler,
})

/** Declares a call out of the enclave, which the host implements. Its answer is hostile: `output` is what it must be. */
export const ocall = <Input extends StandardSchemaV1, Output extends StandardSchemaV1>(declaration: {
  readonly input: Input
  readonly output: Output
}): { readonly input: Input; readonly output: Output } => ({ input: declaration.input, output: declaration.output })

/**
 * Refuses the call for one of the reasons that `defineEnclave({ refusals })` declares. The host gets ERR_APPLICATION with
 * the reason and its declared text.
 */
export const refuse = (reason: string): never => {
  throw new KeyriseError('ERR_APPLICATION', { reason })
}

/**
 * Defines an enclave: the default export of its module.
 * @throws {KeyriseError} ERR_CONFIG_INVALID when a name is not one, or an ECALL uses an OCALL that is not listed.
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
}): EnclaveDefinition<Ecalls, Ocalls> => {
  const { name, svn, ecalls, refusals = {} } = definition
  const ocalls = (definition.ocalls ?? {}) as Ocalls
  for (const called of [name, ...Object.keys(ecalls), ...Object.keys(ocalls), ...Object.keys(refusals)]) {
    if (!isCallName(called)) throw new KeyriseError('ERR_CONFIG_INVALID', { detail: `the name ${String(called)}` })
  }
  if (!Number.isSafeInteger(svn) || svn < 0) throw new KeyriseError('ERR_CONFIG_INVALID', { detail: 'svn' })
  for (const declaration of Object.values(ecalls)) {
    for (const [called, used] of Object.entries(declaration.ocalls ?? {})) {
      if (ocalls[called] !== used)
        throw new KeyriseError('ERR_CONFIG_INVALID', { detail: `the OCALL ${called} is used but not listed` })
    }
  }
  return { name, svn, ecalls, ocalls, refusals }
}
