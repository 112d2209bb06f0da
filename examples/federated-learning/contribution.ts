import type { Contribution } from './messages.js'

/** A contribution as it is stored: the names of the participants, u32 their size, then the ciphertext. */
type Recorded = Pick<Contribution, 'participants' | 'ciphertext'>

export const encodeContribution = ({ participants, ciphertext }: Recorded): Uint8Array<ArrayBuffer> => {
  const names = Buffer.from(participants.join())
  const bytes = new Uint8Array(new ArrayBuffer(4 + names.length + ciphertext.length))
  new DataView(bytes.buffer).setUint32(0, names.length)
  bytes.set(names, 4)
  bytes.set(ciphertext, 4 + names.length)
  return bytes
}

export const decodeContribution = (bytes: Uint8Array): Recorded => {
  const nameSize = new DataView(bytes.buffer, bytes.byteOffset).getUint32(0)
  const names = Buffer.from(bytes.subarray(4, 4 + nameSize)).toString()
  return { participants: names.split(','), ciphertext: bytes.slice(4 + nameSize) }
}
