import { readFile } from 'node:fs/promises'
import { parsePolicy, type CheckedPolicy } from '../kms/policy-file.js'
import { KeyriseError } from '../protocol/errors.js'

/** A policy file. @throws {KeyriseError} ERR_CONFIG_INVALID. */
export const readPolicy = async (path: string): Promise<CheckedPolicy> => {
  let text: string
  try {
    text = await readFile(path, 'utf8')
  } catch (error) {
    const code: unknown = error instanceof Error && 'code' in error ? error.code : 'unknown'
    throw new KeyriseError('ERR_CONFIG_INVALID', { detail: `the policy ${path} cannot be read (${String(code)})` })
  }
  return parsePolicy(text)
}
