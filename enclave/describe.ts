import { endInstance, EXIT_CODES, launched } from './boot.js'
import type { MessagePort } from 'node:worker_threads'
import type { EnclaveDefinition } from '../protocol/contract.js'

/** Tells the image builder what the author's module declares. It is bundled for that alone, and is part of no image. */
export const describeEnclave = (definition: EnclaveDefinition): void => {
  const { manifest } = launched as { manifest: MessagePort }
  const { name, svn, ecalls, ocalls, refusals } = definition
  manifest.postMessage({
    name,
    svn,
    ecalls: Object.keys(ecalls).sort(),
    ocalls: Object.keys(ocalls).sort(),
    refusals: Object.keys(refusals).sort(),
  })
  endInstance(EXIT_CODES.wiped)
}
