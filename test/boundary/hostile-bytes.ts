import { encodeMessage } from '../../protocol/message-codec.js'
import type { Dice, HostileMessages } from './hostile-messages.js'

/** Frames as whoever writes a ring or a socket makes them, past every encoder. */

const RIGHT_FRAMES: readonly Uint8Array[] = [
  {
    id: 1,
    type: 'APPLY',
    path: ['take'],
    argumentList: [{ type: 'RAW', value: { a: [1, 'x', new Uint8Array(9)] } }],
  },
  { id: 2, type: 'APPLY', path: ['add'], argumentList: [{ type: 'RAW', value: { a: 1.5, b: -1 } }], key: 'k' },
  { id: 'x', type: 'APPLY', path: ['digest'], argumentList: [] },
  { id: 3, type: 'RAW', value: null },
].map((message) => encodeMessage(message))

/** Random bytes; or a right frame that is changed, cut or lengthened; or a hostile message, as far as it can be encoded. */
export const hostileFrame = (dice: Dice, messages: HostileMessages): Uint8Array => {
  const noise = (size: number) => Uint8Array.from({ length: size }, () => dice.roll(256))
  switch (dice.roll(5)) {
    case 0:
      return noise(1 + dice.roll(64))
    case 1:
      // A claimed size far beyond what is there.
      return Uint8Array.from([dice.roll(6), 0, 0, 0, 1, ...noise(4), 255, 255, 255, 255, dice.roll(256)])
    case 2:
      try {
        return encodeMessage(messages.message().message, { sizeBytesMax: 16_000 })
      } catch {
        return noise(8)
      }
    default: {
      const frame = Uint8Array.from(dice.pick(RIGHT_FRAMES))
      for (let count = dice.roll(4); count >= 0; count--) frame[dice.roll(frame.length)] = dice.roll(256)
      if (dice.roll(3) === 0) return frame.subarray(0, 1 + dice.roll(frame.length))
      return dice.roll(3) === 0 ? Uint8Array.from([...frame, ...noise(dice.roll(8))]) : frame
    }
  }
}
