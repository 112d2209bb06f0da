import { setImmediate } from 'node:timers/promises'
import { isKeyriseError, KeyriseError } from '../protocol/errors.js'
import { STORE_ERROR_CODES, type CommitChannel, type KmsChannel, type Store } from '../protocol/ports.js'

/** Commits by way of `store` and a KMS: whatever one of them fails with, it is told which of them failed. */
export const commitChannel = (store: Store, kms: KmsChannel): CommitChannel => ({
  commit: async (name, bytes, frame) => {
    const durable = store.put(name, bytes)
    const exchangeAfter = kms.exchangeAfter?.bind(kms)
    // One turn later, when the store has begun: its part takes longer.
    const answered = exchangeAfter && setImmediate().then(() => exchangeAfter(durable, frame))
    // Heard of below, or not at all where the store fails.
    answered?.catch(() => undefined)
    try {
      await durable
    } catch (error) {
      throw isKeyriseError(error, ...STORE_ERROR_CODES) ? error : new KeyriseError('ERR_STORE_IO', { cause: error })
    }
    try {
      return await (answered ?? kms.exchange(frame))
    } catch (error) {
      throw new KeyriseError('ERR_KMS_UNREACHABLE', { cause: error })
    }
  },
})
