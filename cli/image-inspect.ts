import { toHex } from '../protocol/bytes.js'
import type { DeclaredEcall, DeclaredOcall } from '../protocol/declared-calls.js'
import { isKeyriseError } from '../protocol/errors.js'
import type { Image } from '../platform/image.js'
import type { ImageSignature } from '../platform/image-signature.js'
import { printResult, table } from './terminal.js'

/** An image and what lies beside it: a signature, none, or why it is not valid. */
export interface InspectedImage {
  readonly image: Image
  readonly signature: ImageSignature | undefined
  readonly refusal?: string
}

/** What an image file says, with the file beside it. @throws {KeyriseError} ERR_IMAGE_INVALID. */
export const inspectImage = async (file: string): Promise<InspectedImage> => {
  const { readUnsignedImage } = await import('../platform/image.js')
  const { readSignatureFile, signatureFile } = await import('../platform/image-signature.js')
  const image = await readUnsignedImage(file)
  try {
    return { image, signature: await readSignatureFile(signatureFile(file), image.measurement) }
  } catch (error) {
    if (!isKeyriseError(error, 'ERR_IMAGE_SIGNATURE')) throw error
    return { image, signature: undefined, refusal: error.detail ?? 'not valid' }
  }
}

/** Everything that an image declares, and who answers for it: one JSON object, or tables. */
export const printImage = (isJson: boolean, { image, signature, refusal }: InspectedImage): void => {
  const { name, svn, debug, ecalls, ocalls, refusals } = image.manifest
  const result = {
    name,
    svn,
    debug,
    measurement: toHex(image.measurement),
    sizeBytes: Buffer.byteLength(image.source),
    signature: signature !== undefined ? 'valid' : refusal === undefined ? 'none' : 'invalid',
    signer: signature === undefined ? null : toHex(signature.signer),
    productId: signature?.productId ?? null,
    ...(refusal === undefined ? {} : { refusal }),
    ecalls,
    ocalls,
    refusals,
  }
  const rows: (readonly [string, string])[] = [
    ['name', name],
    ['svn', String(svn)],
    ['debug', debug ? 'YES: errors and output leave it in full' : 'no'],
    ['measurement', result.measurement],
    ['size', `${String(result.sizeBytes)} bytes`],
    ['signature', refusal === undefined ? result.signature : `INVALID: ${refusal}`],
    ['signer', result.signer ?? '–'],
    ['product id', String(result.productId ?? '–')],
    ['refusals', refusals.join(' ') || '–'],
  ]
  printResult(isJson, result, [...table(rows), '', ...ecallTable(ecalls), ...ocallTable(ocalls)])
}

const ecallTable = (ecalls: readonly DeclaredEcall[]): string[] =>
  columns(
    ['ECALL', 'input', 'output', 'in flight', 'streams', 'switchless', 'OCALLs'],
    ecalls.map(({ name, receives, yields, switchless, ocalls, limits }) => [
      name,
      size(limits.inputSizeBytesMax),
      size(limits.outputSizeBytesMax),
      String(limits.inFlightMax ?? '–'),
      [...(receives ? ['in'] : []), ...(yields ? ['out'] : [])].join(' ') || '–',
      switchless ? 'yes' : '–',
      ocalls.join(' ') || '–',
    ]),
  )

const ocallTable = (ocalls: readonly DeclaredOcall[]): string[] =>
  ocalls.length === 0
    ? []
    : [
        '',
        ...columns(
          ['OCALL', 'input', 'output', 'per second', 'deadline', 'streams'],
          ocalls.map(({ name, yields, limits }) => [
            name,
            size(limits.inputSizeBytesMax),
            size(limits.outputSizeBytesMax),
            String(limits.perSecondMax ?? '–'),
            limits.deadlineMs === undefined ? '–' : `${String(limits.deadlineMs)} ms`,
            yields ? 'in' : '–',
          ]),
        ),
      ]

const UNITS = ['MiB', 'KiB'] as const

/** A declared limit, in the largest unit in which it is whole; `–` where the launch sets it. */
const size = (bytes: number | undefined): string => {
  if (bytes === undefined) return '–'
  for (const [index, unit] of UNITS.entries()) {
    const count = bytes / 1024 ** (UNITS.length - index)
    if (Number.isInteger(count)) return `${String(count)} ${unit}`
  }
  return `${String(bytes)} B`
}

/** Rows under a head, each column as wide as its widest. */
const columns = (head: readonly string[], rows: readonly (readonly string[])[]): string[] => {
  const widths = head.map((title, column) => Math.max(title.length, ...rows.map((row) => row[column]?.length ?? 0)))
  return [head, ...rows].map((row) =>
    row
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join('  ')
      .trimEnd(),
  )
}
