import { printableText, RUNTIME_OCALLS } from '../protocol/calls.js'
import { FieldReader } from '../protocol/check.js'
import { FOUND_STATUSES, type FoundStatus, type OcallContext } from '../protocol/contract.js'
import { KeyriseError } from '../protocol/errors.js'
import {
  MESSAGE_SIZE_BYTES_MAX,
  NAME_LENGTH_MAX,
  SEALED_SEGMENT_SIZE_BYTES_MAX,
  STORE_COPY_COUNT_MAX,
} from '../protocol/limits.js'
import type { FlowId } from '../protocol/names.js'
import type { KmsChannel, Store } from '../protocol/ports.js'
import { commitChannel } from './commits.js'
import { segmentChannel } from './segments.js'
import type { OcallTable } from './served-ocalls.js'

export interface OcallTableOptions {
  readonly flow: FlowId
  readonly store: Store
  readonly kms: KmsChannel
  readonly authors: Readonly<Record<string, (input: never, context: OcallContext) => unknown>>
  /** Called with what the enclave says of an object in the store. */
  readonly found: (object: string, status: FoundStatus) => void
}

/** The table of the runtime's own OCALLs, which keep to the flow's part of the store, and the author's. */
export const ocallTable = ({ flow, store, kms, authors, found }: OcallTableOptions): OcallTable => {
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
  const commits = commitChannel(store, kms)
  const copies = async (): Promise<readonly Store[]> => (await store.copies?.()) ?? [store]
  /** The store, or the copy of it that is asked for. */
  const chosen = async (fields: FieldReader): Promise<Store> => {
    if (!fields.has('copy')) return store
    return (await copies())[fields.count('copy', STORE_COPY_COUNT_MAX)] ?? fields.refuse('copy')
  }
  const runtime: [string, (claimed: unknown) => unknown][] = [
    [
      RUNTIME_OCALLS.storePut,
      async (claimed) => {
        const fields = read(claimed, 'name', 'bytes', 'copy')
        return (await chosen(fields)).put(name(fields, 'name'), bytes(fields, 'bytes'))
      },
    ],
    [
      RUNTIME_OCALLS.storeGet,
      async (claimed) => {
        const fields = read(claimed, 'name', 'copy')
        return (await (await chosen(fields)).get(name(fields, 'name'))) ?? null
      },
    ],
    [
      RUNTIME_OCALLS.storeRead,
      async (claimed) => {
        const fields = read(claimed, 'name', 'offset', 'sizeBytes', 'copy')
        const sizeBytes = fields.count('sizeBytes', MESSAGE_SIZE_BYTES_MAX)
        return (await (await chosen(fields)).read(name(fields, 'name'), fields.count('offset'), sizeBytes)) ?? null
      },
    ],
    [
      RUNTIME_OCALLS.storeList,
      async (claimed) => {
        const fields = read(claimed, 'prefix', 'copy')
        return (await chosen(fields)).list(name(fields, 'prefix'))
      },
    ],
    [
      RUNTIME_OCALLS.storeDelete,
      async (claimed) => {
        const fields = read(claimed, 'name', 'copy')
        return (await chosen(fields)).delete(name(fields, 'name'))
      },
    ],
    [RUNTIME_OCALLS.storeCopies, async () => (await copies()).length],
    [
      RUNTIME_OCALLS.storeFinding,
      (claimed) => {
        const fields = read(claimed, 'object', 'status')
        const claimedStatus = fields.claimed('status')
        const status = FOUND_STATUSES.find((known) => known === claimedStatus) ?? fields.refuse('status')
        found(printableText(fields.text('object', NAME_LENGTH_MAX)), status)
      },
    ],
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
    [
      RUNTIME_OCALLS.storeCommit,
      (claimed) => {
        const fields = read(claimed, 'name', 'bytes', 'frame')
        return commits.commit(name(fields, 'name'), bytes(fields, 'bytes'), bytes(fields, 'frame'))
      },
    ],
    [RUNTIME_OCALLS.kmsExchange, (claimed) => kms.exchange(bytes(read(claimed, 'frame'), 'frame'))],
  ]
  return new Map([...(Object.entries(authors) as [string, (claimed: unknown) => unknown][]), ...runtime])
}
