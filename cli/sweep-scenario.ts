import { resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import { checkScenario, type Scenario } from '../faults/scenario.js'
import { isKeyriseError, KeyriseError } from '../protocol/errors.js'

/** The scenario that a module’s default export is. @throws {KeyriseError} ERR_CONFIG_INVALID. */
export const loadScenario = async (path: string): Promise<Scenario> => {
  try {
    const module = (await import(pathToFileURL(resolve(path)).href)) as { readonly default?: unknown }
    return checkScenario(module.default)
  } catch (error) {
    if (isKeyriseError(error)) throw error
    const detail = `${path}: ${error instanceof Error ? error.message : 'it cannot be loaded'}`
    throw new KeyriseError('ERR_CONFIG_INVALID', { detail, cause: error })
  }
}
