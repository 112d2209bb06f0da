import { endInstance, EXIT_CODES, launched } from './boot.js'
import type { MessagePort } from 'node:worker_threads'
import type { EnclaveDefinition } from '../protocol/contract.js'
import { declaredCalls } from '../protocol/declared-calls.js'
import { KeyriseError } from '../protocol/errors.js'
import { diagnostics } from './diagnostics.js'

/**
 * Tells the image builder what the author's module declares, or why it cannot be loaded. It is bundled for that alone, and
 * evaluated before the module, so that it hears of what the module prints and fails with; it is part of no image.
 */
const { manifest } = launched as { readonly manifest: MessagePort }
diagnostics()?.attach((lines) => {
  manifest.postMessage({ printed: lines.map(({ text }) => text) })
  return Promise.resolve()
})

/** @param definition - what the module exports: anything, until it is checked. */
export const describeEnclave = (definition: EnclaveDefinition | undefined): void => {
  if (typeof definition?.ecalls !== 'object')
    throw new KeyriseError('ERR_CONFIG_INVALID', { detail: 'the default export is not defineEnclave(…)' })
  const { name, svn, refusals } = definition
  manifest.postMessage({ name, svn, ...declaredCalls(definition), refusals: Object.keys(refusals).sort() })
  endInstance(EXIT_CODES.wiped)
}
