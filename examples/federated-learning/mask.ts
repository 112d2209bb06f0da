import { createCipheriv, hkdfSync } from 'node:crypto'

/**
 * Pairwise masks (Bonawitz et al. 2017, §4): of two parties that share a seed, the one whose name sorts first adds what the
 * other subtracts. In the sum over all of a round they cancel; a single contribution looks random even to whoever holds the
 * homomorphic secret key.
 */

/**
 * `count` numbers, uniform from 0 to `modulus` − 1.
 * @param seed - shared by two parties.
 * @param label - never used twice with one seed.
 */
export const expandMask = (seed: Uint8Array, label: string, count: number, modulus: number): Uint32Array => {
  const key = new Uint8Array(hkdfSync('sha256', seed, new Uint8Array(0), `federated-learning/mask/${label}`, 32))
  const stream = createCipheriv('aes-256-ctr', key, new Uint8Array(16))
  key.fill(0)
  const bits = Math.ceil(Math.log2(modulus))
  const mask = new Uint32Array(count)
  for (let filled = 0; filled < count;) {
    const block = stream.update(new Uint8Array(4))
    const candidate = block.readUInt32LE(0) >>> (32 - bits)
    // Rejection: taking the remainder instead would prefer small numbers.
    if (candidate < modulus) mask[filled++] = candidate
  }
  return mask
}

export interface MaskPeer {
  readonly flow: string
  readonly seed: Uint8Array
}

/**
 * `values` modulo `modulus`, under the masks shared with `peers`.
 * @param options.label - names the round and its exact participants.
 */
export const maskValues = (
  values: Int32Array,
  options: {
    readonly flow: string
    readonly peers: readonly MaskPeer[]
    readonly label: string
    readonly modulus: number
  },
): Uint32Array => {
  const { flow, peers, label, modulus } = options
  const masked = Array.from(values, (value) => ((value % modulus) + modulus) % modulus)
  for (const peer of peers) {
    const mask = expandMask(peer.seed, label, values.length, modulus)
    mask.forEach((number, index) => {
      const value = (masked[index] ?? 0) + (flow < peer.flow ? number : modulus - number)
      masked[index] = value % modulus
    })
  }
  return Uint32Array.from(masked)
}
