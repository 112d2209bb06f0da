import { RUNTIME_OCALLS } from '../protocol/calls.js'
import { FieldReader } from '../protocol/check.js'
import type { OcallContext } from '../protocol/contract.js'
import { KeyriseError } from '../protocol/errors.js'
import { MESSAGE_SIZE_BYTES_MAX, SEALED_SEGMENT_SIZE_BYTES_MAX } from '../protocol/limits.js'
import type { FlowId } from '../protocol/names.js'
import type { KmsChannel, Store } from '../protocol/ports.js'
import { segmentChannel } from './segments.js'
import type { OcallTable } from './served-ocalls.js'

/** The table of the runtime's own OCALLs, which keep to the flow's part of the store, and the author's. */
export const ocallTable = (
  flow: FlowId,
  store: Store,
  kms: KmsChannel,
  authors: Readonly<Record<string, (input: never, context: OcallContext) => unknown>>,
): OcallTable => {
  const read = (claimed: unknown, ...keys: string[]): FieldReader =>
    new FieldReader(claimed, keys, 'ERR_ARGUMENT_INVALID')
  const name = (fields: FieldReader, field: string): string => {
    const text = fields.text(field, 512)
    if (!text.startsWith(`${flow}/`))
      throw new KeyriseError('ERR_NAME_INVALID', { detail: `a name in the store starts with ${flow}/` })
    return text
  }
  const bytes = (fields: FieldReader, field: string): Uint8Array => {
    const claimed = fields.claimed(field)
    return claimed instanceof Uint8Array ? claimed : fields.refuse(field)
  }
  const segments = segmentChannel(store, kms)
  const runtime: [string, (claimed: unknown) => unknown][] = [
    [
      RUNTIME_OCALLS.storePut,
      (claimed) => {
        const fields = read(claimed, 'name', 'bytes')
        return store.put(name(fields, 'name'), bytes(fields, 'bytes'))
      },
    ],
    [RUNTIME_OCALLS.storeGet, async (claimed) => (await store.get(name(read(claimed, 'name'), 'name'))) ?? null],
    [
      RUNTIME_OCALLS.storeRead,
      async (claimed) => {
        const fields = read(claimed, 'name', 'offset', 'sizeBytes')
        const sizeBytes = fields.count('sizeBytes', MESSAGE_SIZE_BYTES_MAX)
        return (await store.read(name(fields, 'name'), fields.count('offset'), sizeBytes)) ?? null
      },
    ],
    [RUNTIME_OCALLS.storeList, (claimed) => store.list(name(read(claimed, 'prefix'), 'prefix'))],
    [RUNTIME_OCALLS.storeDelete, (claimed) => store.delete(name(read(claimed, 'name'), 'name'))],
    [
      RUNTIME_OCALLS.bulkSegment,
      async (claimed) => {
        const fields = read(claimed, 'name', 'offset', 'sizeBytes', 'stream', 'index')
        return (
          (await segments.exchange({
            name: name(fields, 'name'),
            offset: fields.count('offset'),
            sizeBytes: fields.count('sizeBytes', SEALED_SEGMENT_SIZE_BYTES_MAX),
            stream: fields.bytes('stream', 16),
            index: fields.count('index'),
          })) ?? null
        )
      },
    ],
    [RUNTIME_OCALLS.kmsExchange, (claimed) => kms.exchange(bytes(read(claimed, 'frame'), 'frame'))],
  ]
  return new Map([...(Object.entries(authors) as [string, (claimed: unknown) => unknown][]), ...runtime])
}
