/** The key that every attack is after: random bytes, made inside, and told to nobody before the attack is over. */
export const CANARY_SIZE_BYTES = 32

/** Told masked, so that telling leaves no form of the key in the host. */
const MASK = 0xa5
export const masked = (bytes: Uint8Array): Uint8Array<ArrayBuffer> => Uint8Array.from(bytes, (byte) => byte ^ MASK)
