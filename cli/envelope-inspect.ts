import { toHex } from '../protocol/bytes.js'
import type { EnvelopeContext } from '../protocol/context.js'
import { isKeyriseError, type ErrorCode } from '../protocol/errors.js'
import { describeHeader, describePayload, type RecipientDescription } from '../protocol/crypto/describe.js'
import { readHead } from './claimed-envelope.js'
import { openInput, type Input } from './input.js'
import { formatSize, Progress } from './progress.js'
import { printResult, table } from './terminal.js'

/** What `keyrise envelope inspect --json` prints. All of it is the file’s own claim: nothing is verified without a key. */
interface Inspection {
  /** Null for standard input. */
  readonly file: string | null
  readonly armored: boolean
  readonly recipients: readonly RecipientDescription[]
  /** `image` in hex. Null where the file has none. */
  readonly context: (Omit<EnvelopeContext, 'image'> & { readonly image: string }) | null
  /** Fingerprints of the KMS identities that vouch for the context, in hex. */
  readonly authorities: readonly string[]
  readonly layer: { readonly index: number; readonly count: number }
  readonly headerSizeBytes: number
  /** Header, nonce and chunks, without armor. */
  readonly sizeBytes: number
  /** Null where no payload has this size; `problem` says why then. */
  readonly chunkCount: number | null
  readonly plaintextSizeBytes: number | null
  readonly problem: ErrorCode | null
}

/** `keyrise envelope inspect`. @throws {KeyriseError} ERR_FILE_UNREADABLE, ERR_ARMOR_INVALID, ERR_HEADER_MALFORMED, ERR_HEADER_LIMIT. */
export const inspectCommand = async (path: string | undefined, flags: { readonly json?: boolean }): Promise<void> => {
  using input = openInput(path)
  const inspection = await inspect(input)
  printResult(flags.json === true, inspection, explain(inspection))
}

const inspect = async (input: Input): Promise<Inspection> => {
  const { header, isArmored, pieces } = await readHead(input)
  const { context, ...description } = describeHeader(header)
  const sizeBytes = input.sizeBytes !== undefined && !isArmored ? input.sizeBytes : await sizeOf(pieces, input)
  return {
    file: input.path ?? null,
    armored: isArmored,
    recipients: description.recipients,
    context: context === undefined ? null : { ...context, image: toHex(context.image) },
    authorities: description.authorities,
    layer: description.layer,
    headerSizeBytes: description.headerSizeBytes,
    sizeBytes,
    ...payloadOf(sizeBytes - header.sizeBytes),
  }
}

const sizeOf = async (pieces: AsyncIterable<Uint8Array>, input: Input): Promise<number> => {
  using progress = new Progress(input.sizeBytes)
  let sizeBytes = 0
  for await (const piece of pieces) progress.show((sizeBytes += piece.length))
  return sizeBytes
}

const payloadOf = (sizeBytes: number): Pick<Inspection, 'chunkCount' | 'plaintextSizeBytes' | 'problem'> => {
  try {
    return { ...describePayload(sizeBytes), problem: null }
  } catch (error) {
    if (!isKeyriseError(error)) throw error
    return { chunkCount: null, plaintextSizeBytes: null, problem: error.code }
  }
}

const bytesText = (sizeBytes: number): string =>
  sizeBytes < 1024 ? `${sizeBytes} bytes` : `${sizeBytes} bytes (${formatSize(sizeBytes)})`

const explain = (inspection: Inspection): string[] => {
  const { recipients, context, authorities, layer, chunkCount, plaintextSizeBytes } = inspection
  const rows: (readonly [string, string])[] = [
    ['envelope', `${bytesText(inspection.sizeBytes)}${inspection.armored ? ', armored' : ''}`],
    ['header', bytesText(inspection.headerSizeBytes)],
    ...recipients.map(({ type, opens, hint }) => {
      return ['recipient', `${type}${hint === undefined ? '' : ` (${hint})`}: ${opens}`] as const
    }),
    ['layer', layer.count === 1 ? 'the only one' : `${layer.index} of ${layer.count}, counted from the inside`],
  ]
  if (context === null) rows.push(['context', 'none'])
  else for (const [field, value] of Object.entries(context)) rows.push([`context ${field}`, String(value)])
  for (const authority of authorities) rows.push(['vouched by', `KMS identity ${authority}, as it claims`])
  rows.push(
    plaintextSizeBytes === null || chunkCount === null
      ? ['payload', `damaged: ${inspection.problem ?? ''}`]
      : [
          'payload',
          `${bytesText(plaintextSizeBytes)} of plaintext in ${chunkCount} ${chunkCount === 1 ? 'chunk' : 'chunks'}`,
        ],
  )
  return table(rows)
}
