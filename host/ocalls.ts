import {
  encodeRefusal,
  encodeReply,
  parseCall,
  RUNTIME_OCALLS,
  claimedId,
  type ClaimedCall,
  type Outgoing,
} from '../protocol/calls.js'
import { FieldReader } from '../protocol/check.js'
import { KeyriseError } from '../protocol/errors.js'
import { MESSAGE_SIZE_BYTES_MAX, SEALED_SEGMENT_SIZE_BYTES_MAX } from '../protocol/limits.js'
import type { FlowId } from '../protocol/names.js'
import type { KmsChannel, Port, Store } from '../protocol/ports.js'
import { segmentChannel } from './segments.js'

/** What a host does for its enclaves, by name. */
export type OcallTable = ReadonlyMap<string, (claimedArgument: unknown) => unknown>

export type OcallFailed = (name: string, error: unknown) => void

/** The table of the runtime's own OCALLs, which keep to the flow's part of the store, and the author's. */
export const ocallTable = (
  flow: FlowId,
  store: Store,
  kms: KmsChannel,
  authors: Readonly<Record<string, (input: never) => unknown>>,
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

/** Answers an instance's OCALLs from `table`. What fails reaches the enclave as a code, and `failed` with its cause. */
export const serveOcalls = (port: Port, table: OcallTable, failed: OcallFailed): void => {
  port.onMessage((message) => void answer(port, table, failed, message))
}

const answer = async (port: Port, table: OcallTable, failed: OcallFailed, message: unknown): Promise<void> => {
  try {
    const call = parseCall(message)
    const { message: reply, transfer } = await perform(table, failed, call)
    port.post(reply, transfer)
  } catch (error) {
    // Not a call: whoever waits for an answer to it, if anyone, hears that.
    port.post(encodeRefusal(claimedId(message), error, 'ERR_OCALL_FAILED').message)
  }
}

const perform = async (
  table: OcallTable,
  failed: OcallFailed,
  { id, name, claimedArgument }: ClaimedCall,
): Promise<Outgoing> => {
  try {
    const serve = table.get(name)
    if (serve === undefined) throw new KeyriseError('ERR_OCALL_UNKNOWN')
    return encodeReply(id, await serve(claimedArgument))
  } catch (error) {
    failed(name, error)
    return encodeRefusal(id, error, 'ERR_OCALL_FAILED')
  }
}
