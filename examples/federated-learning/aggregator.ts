import { loadScheme } from './homomorphic.js'
import type { Contribution } from './messages.js'

/** The aggregator: it carries ciphertexts and adds them, and holds no key. Nobody has to trust it. */
export const addContributions = async (contributions: readonly Contribution[]): Promise<Uint8Array> =>
  (await loadScheme()).add(contributions.map(({ ciphertext }) => ciphertext))
