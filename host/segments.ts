import { decodeKmsReply, encodeKmsRequest } from '../protocol/kms.js'
import { copyBytes } from '../protocol/bytes.js'
import { KeyriseError } from '../protocol/errors.js'
import type { KmsChannel, SegmentChannel, Store } from '../protocol/ports.js'

/** Payloads from `store` through a KMS, sealed on either side of it. */
export const segmentChannel = (store: Store, kms: KmsChannel): SegmentChannel => ({
  exchange: async ({ name, offset, sizeBytes, stream, index }) => {
    const sealed = await store.read(name, offset, sizeBytes)
    if (sealed === undefined) return undefined
    if (sealed.length !== sizeBytes)
      throw new KeyriseError('ERR_ENVELOPE_INVALID', { detail: 'the payload is cut short' })
    const request = encodeKmsRequest({ op: 'segment', stream: copyBytes(stream), index, sealed })
    return decodeKmsReply('segment', await kms.exchange(request)).sealed
  },
})
