import { sha256 as nobleSha256 } from '@noble/hashes/sha2.js'
import { copyBytes, type Bytes } from './bytes.js'

/**
 * SHA-256 of public bytes (FIPS 180-4). noble, because this folder may not import Node; apart from bytes.ts, which everything
 * imports, because it takes a while to load.
 */
export const sha256 = (...parts: readonly Uint8Array[]): Bytes => {
  const hash = nobleSha256.create()
  for (const part of parts) hash.update(part)
  return copyBytes(hash.digest())
}
