import type { Command } from 'commander'
import { fromHex, toHex } from '../protocol/bytes.js'
import { openReceipt } from '../protocol/crypto/receipts.js'
import { KeyriseError } from '../protocol/errors.js'
import { RECEIPT_SIZE_BYTES_MAX } from '../protocol/limits.js'
import { isReceiptKind, receiptDigest, type Receipt } from '../protocol/receipts.js'
import { checkReceipts, type CheckedReceipts, type KnownReceipt, type ReceiptFinding } from '../kms/check-receipts.js'
import { LOG_SIZE_BYTES_MAX } from '../kms/log.js'
import { encodeReceiptsFile, readReceiptsFile } from '../kms/receipts-file.js'
import { nodeFileSystem, readWhole } from '../storage/index.js'
import { each } from './arguments.js'
import { inspectLedger } from './inspect-ledger.js'
import { openOutput } from './output.js'
import { EXIT, printOutcome, printResult, printText } from './terminal.js'

interface Flags {
  readonly json?: boolean
}
interface ListFlags extends Flags {
  readonly directory: string
  readonly flow?: string
  readonly kind?: string
}
interface VerifyFlags extends Flags {
  readonly identity: string
  readonly head?: readonly string[]
  readonly receipt?: readonly string[]
}

/** Nothing in them is secret. */
const RECEIPTS_MODE = 0o666

/** `keyrise receipts …` */
export const addReceiptsCommands = (receipts: Command): void => {
  receipts
    .command('export')
    .description('write a KMS’s receipts to a file; it may be running')
    .requiredOption('--directory <path>', 'the KMS’s directory')
    .option('--out <file>', 'where to write them; standard output unless told')
    .option('--force', 'replace an existing file')
    .option('--json', 'print one JSON object')
    .action(exportReceipts)
  receipts
    .command('list')
    .description('print what a KMS’s receipts say, oldest first')
    .requiredOption('--directory <path>', 'the KMS’s directory')
    .option('--flow <id>', 'those of this flow')
    .option('--kind <kind>', 'those of this kind: open, unwrap, denial, rotation, …')
    .option('--json', 'print JSON, a line for each')
    .action(list)
  receipts
    .command('verify')
    .description('check a file of receipts, with nothing but the KMS’s identity')
    .argument('<file>', 'as `export` wrote it')
    .requiredOption('--identity <hex>', 'the KMS’s: what `keyrise kms identity` prints, or a file that holds it')
    .option(
      '--head <number:digest>',
      'a receipt that has to be among them, as an earlier check printed it; may be repeated',
      each,
    )
    .option(
      '--receipt <file>',
      'a single receipt that has to be among them, as `flow.receipts` has it; may be repeated',
      each,
    )
    .option('--json', 'print one JSON object')
    .action(verify)
}

const exportReceipts = async (
  flags: Flags & { readonly directory: string; readonly out?: string; readonly force?: boolean },
): Promise<void> => {
  const { identity, receipts } = await inspectLedger(flags.directory)
  using output = openOutput({ path: flags.out, isForced: flags.force === true, mode: RECEIPTS_MODE })
  for (const piece of encodeReceiptsFile(receipts)) await output.write(piece)
  output.commit({ isDurable: true })
  const outcome = { receipts: receipts.length, identity: toHex(identity) }
  printOutcome(flags.json === true, outcome, output.isStandard)
}

const list = async (flags: ListFlags): Promise<void> => {
  if (flags.kind !== undefined && !isReceiptKind(flags.kind))
    throw new KeyriseError('ERR_CONFIG_INVALID', { detail: `--kind: there are no receipts of ${flags.kind}` })
  const { identity, receipts } = await inspectLedger(flags.directory)
  for (const signed of receipts) {
    const receipt = openReceipt(identity, signed)
    if (receipt === undefined) throw new KeyriseError('ERR_LEDGER_DAMAGED', { detail: 'a receipt is not signed' })
    const isAsked =
      (flags.flow === undefined || receipt.flow === flags.flow) &&
      (flags.kind === undefined || receipt.kind === flags.kind)
    if (isAsked) printText(`${flags.json === true ? JSON.stringify(readable(receipt)) : renderReceipt(receipt)}\n`)
  }
}

const verify = async (file: string, flags: VerifyFlags): Promise<void> => {
  const identity = await readIdentity(flags.identity)
  const known = (flags.head ?? []).map(readKnown)
  for (const path of flags.receipt ?? []) known.push(await readReceipt(path, identity))
  const bytes = await readBounded(file, LOG_SIZE_BYTES_MAX)
  const { findings, count, head } = checkReceipts(identity, readReceiptsFile(bytes), known)
  const shownHead = head === undefined ? null : renderKnown(head)
  printResult(flags.json === true, { ok: findings.length === 0, receipts: count, head: shownHead, findings }, [
    ...findings.map(renderFinding),
    summarise({ findings, count, head }),
  ])
  if (findings.length > 0) process.exitCode = EXIT.failed
}

const readBounded = async (path: string, sizeBytesMax: number): Promise<Uint8Array> => {
  let bytes: Uint8Array | undefined
  try {
    bytes = await readWhole(nodeFileSystem, path, sizeBytesMax)
  } catch (cause) {
    throw new KeyriseError('ERR_FILE_UNREADABLE', { detail: path, cause })
  }
  if (bytes === undefined) throw new KeyriseError('ERR_FILE_UNREADABLE', { detail: path })
  return bytes
}

/** 64 hex digits, or a file that begins with them. */
const readIdentity = async (claimed: string): Promise<Uint8Array> => {
  const given = fromHex(claimed)
  if (given?.length === 32) return given
  const text = new TextDecoder().decode(await readBounded(claimed, 4096))
  const read = fromHex(text.trim())
  if (read?.length === 32) return read
  throw new KeyriseError('ERR_CONFIG_INVALID', { detail: '--identity: 64 hex digits, or a file that holds them' })
}

const readKnown = (claimed: string): KnownReceipt => {
  const [number = '', hex = ''] = claimed.split(':')
  const digest = fromHex(hex)
  if (!/^[1-9][0-9]{0,15}$/.test(number) || digest?.length !== 32)
    throw new KeyriseError('ERR_CONFIG_INVALID', { detail: '--head: a number, a colon and 64 hex digits' })
  return { sequence: Number(number), digest }
}

const readReceipt = async (path: string, identity: Uint8Array): Promise<KnownReceipt> => {
  const bytes = await readBounded(path, RECEIPT_SIZE_BYTES_MAX)
  const receipt = openReceipt(identity, bytes)
  if (receipt === undefined)
    throw new KeyriseError('ERR_CONFIG_INVALID', { detail: `--receipt: ${path} is no receipt of this KMS` })
  return { sequence: receipt.sequence, digest: receiptDigest(bytes) }
}

const renderKnown = ({ sequence, digest }: KnownReceipt): string => `${sequence}:${toHex(digest)}`

const renderFinding = ({ problem, sequence, detail }: ReceiptFinding): string => `${problem}  ${sequence}  ${detail}`

const summarise = ({ findings, count, head }: CheckedReceipts): string =>
  findings.length === 0
    ? `${count} receipts, whole and in order; head ${head === undefined ? 'none' : renderKnown(head)}`
    : `${count} receipts, ${findings.length} findings`

/** As JSON has it: bytes in hex, the time as text. */
const readable = ({ timeMs, ...receipt }: Receipt): Record<string, unknown> => ({
  time: new Date(timeMs).toISOString(),
  ...Object.fromEntries(
    Object.entries(receipt).map(([name, value]) => [name, value instanceof Uint8Array ? toHex(value) : value]),
  ),
})

const DIGEST_SHOWN_LENGTH = 16
/** A line: number, time, kind and flow, then what else it says. */
const renderReceipt = (receipt: Receipt): string => {
  const { sequence, time, kind, flow, kms: _, previous: __, ...others } = readable(receipt)
  const rest = Object.entries(others).map(
    ([name, value]) =>
      `${name}=${/Digest$|^digest$|^measurement$/.test(name) ? String(value).slice(0, DIGEST_SHOWN_LENGTH) : shown(value)}`,
  )
  return [sequence, time, kind, flow ?? '-', ...rest].join('  ')
}
const shown = (value: unknown): string =>
  typeof value === 'string' && !/\s/.test(value) ? value : JSON.stringify(value)
