import path from 'node:path'
import { fileURLToPath } from 'node:url'

/** The repository: this file is compiled to dist/test/project/. */
export const ROOT = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../../..')

const TRUSTED = ['protocol', 'protocol/crypto', 'storage', 'platform', 'enclave', 'kms', 'host'] as const

/** Which room may import which: the one place that says it, beside each room's tsconfig.json, which must agree. */
export const MAY_IMPORT: Readonly<Record<string, readonly string[]>> = {
  protocol: [],
  'protocol/crypto': ['protocol'],
  storage: ['protocol'],
  platform: ['protocol'],
  enclave: ['protocol', 'protocol/crypto'],
  kms: ['protocol', 'protocol/crypto', 'storage'],
  host: ['protocol', 'storage', 'platform'],
  faults: TRUSTED,
  cli: [...TRUSTED, 'faults'],
  examples: [],
  // P12 times the training step of an example.
  bench: [...TRUSTED, 'faults', 'examples'],
}

export const ROOMS = Object.keys(MAY_IMPORT)

/** How a file of room `from` names a file of room `to`. */
export const importPath = (from: string, to: string, file: string): string => {
  const relative = path.posix.join(path.posix.relative(from, to), file)
  return relative.startsWith('.') ? relative : `./${relative}`
}
