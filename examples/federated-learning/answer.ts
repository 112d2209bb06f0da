/** What the decryptor records of a round before it answers: for whom, over which contributions, and the sum. */
interface Answer {
  readonly participants: string[]
  /** Over the exact set of contributions, 32 bytes. */
  readonly digest: Uint8Array
  readonly sum: Uint8Array
}

const DIGEST_SIZE = 32

/** The digest, u32 the size of the names, the names, the sum. */
export const encodeAnswer = ({ participants, digest, sum }: Answer): Uint8Array<ArrayBuffer> => {
  const names = Buffer.from(participants.join())
  const bytes = new Uint8Array(new ArrayBuffer(DIGEST_SIZE + 4 + names.length + sum.length))
  bytes.set(digest)
  new DataView(bytes.buffer).setUint32(DIGEST_SIZE, names.length)
  bytes.set(names, DIGEST_SIZE + 4)
  bytes.set(sum, DIGEST_SIZE + 4 + names.length)
  return bytes
}

export const decodeAnswer = (bytes: Uint8Array): Answer => {
  const nameSize = new DataView(bytes.buffer, bytes.byteOffset).getUint32(DIGEST_SIZE)
  const end = DIGEST_SIZE + 4 + nameSize
  const participants = Buffer.from(bytes.subarray(DIGEST_SIZE + 4, end))
    .toString()
    .split(',')
  return { participants, digest: bytes.slice(0, DIGEST_SIZE), sum: bytes.slice(end) }
}
