import { createPublicKey, sign, type KeyObject } from 'node:crypto'
import type { Command } from 'commander'
import { approvedRoute, reloadPolicyRoute } from '../kms/admin-policy.js'
import { encodeRequest, type Approval, type ApprovalRequest, type MigrationGrant } from '../kms/approvals.js'
import { FileLedger } from '../kms/file-ledger.js'
import { isFlowPattern, parsePolicy, policyDigest } from '../kms/policy-file.js'
import { checkReason } from '../kms/reason.js'
import { formatApproval, formatApproved, formatRequest, parseApproval, parseApproved } from '../kms/request-file.js'
import { copyBytes, fromHex, toHex, type Bytes } from '../protocol/bytes.js'
import { KeyriseError } from '../protocol/errors.js'
import { isProductId } from '../protocol/image-signature.js'
import { parseFlowId } from '../protocol/names.js'
import { nodeClock, nodeFileSystem } from '../storage/index.js'
import { askKms, askRunning } from './admin-client.js'
import { each, wholeNumber, withRunning, type RunningFlags } from './arguments.js'
import { inspectImage } from './image-inspect.js'
import { inspectLedger } from './inspect-ledger.js'
import { readSmallFile } from './key-files.js'
import { openOutput } from './output.js'
import { readPolicy } from './policy-file.js'
import { makeSignerKey, readSignerKey } from './signer-key.js'
import { printResult } from './terminal.js'

/** `keyrise policy keygen`, `request`, `approve`, `submit` and `reload`: what approvers sign, and how it gets to the KMS. */
export const addApprovalCommands = (policy: Command): void => {
  policy
    .command('keygen')
    .description('make an approver’s key, an Ed25519 key in PEM, and print what the policy lists of it')
    .requiredOption('--out <file>', 'where to write the key; never replaced')
    .option('--json', 'print one JSON object')
    .action(keygen)
  const request = policy.command('request').description('write down what approvers are to sign')
  withRequest(request.command('change').argument('<policy>', 'the policy that is to be in force')).action(change)
  withRequest(request.command('migration').description('let flows pass from one image to another'))
    .requiredOption('--from <file>', 'the image that has the flows')
    .option('--to <file>', 'the image that takes them over')
    .option('--to-product <signer:id:svn>', 'or the product that does: its signer in hex, product id and lowest SVN')
    .requiredOption('--flow <pattern>', 'a flow, or a beginning and *; may be repeated', each)
    .option('--days <n>', 'how long it counts', wholeNumber(1, 3650), 30)
    .action(migration)
  withRequest(request.command('release').description('let one image recover one flow, once'))
    .requiredOption('--flow <id>', 'the flow')
    .requiredOption('--image <file>', 'the image that is to recover it')
    .option('--hours <n>', 'how long it counts', wholeNumber(1, 8760), 24)
    .action(release)
  withRequest(request.command('break-glass').description('let the root keys leave the KMS, in an emergency'))
    .requiredOption('--reason <text>', 'why, word by word as `kms break-glass` is given it')
    .option('--hours <n>', 'how long it counts', wholeNumber(1, 8760), 24)
    .action(breakGlass)
  policy
    .command('approve')
    .description('sign a request with an approver’s key: read it first')
    .argument('<request>', 'a file that `keyrise policy request` wrote')
    .requiredOption('--key <file>', 'the approver’s key')
    .requiredOption('--out <file>', 'where to write the approval')
    .option('--json', 'print one JSON object')
    .action(approve)
  policy
    .command('submit')
    .description('hand in a request with approvals: to the KMS where it runs, else to its log')
    .argument('<request>', 'the file that was signed')
    .requiredOption('--approval <file>', 'an approval; may be repeated', each)
    .requiredOption('--directory <path>', 'the KMS’s directory')
    .option('--admin-socket <path>', 'of the KMS that runs there, where it is not in the directory')
    .option('--json', 'print one JSON object')
    .action(submit)
  withRunning(policy.command('reload').description('have the KMS that runs read its policy file again')).action(reload)
}

interface RequestFlags {
  readonly directory: string
  readonly out: string
  readonly json?: boolean
}

const withRequest = (command: Command): Command =>
  command
    .requiredOption('--directory <path>', 'the KMS’s directory: the request is for this KMS alone')
    .requiredOption('--out <file>', 'where to write the request')
    .option('--json', 'print one JSON object')

const DAY_MS = 24 * 60 * 60 * 1000
const HOUR_MS = 60 * 60 * 1000

const keygen = async ({ out, json }: { readonly out: string; readonly json?: boolean }): Promise<void> => {
  const key = toHex(publicKeyOf(await makeSignerKey(out)))
  printResult(json === true, { file: out, key }, [key])
}

const change = async (path: string, flags: RequestFlags): Promise<void> => {
  const { identity, policy } = await inspectLedger(flags.directory)
  if (policy === undefined)
    throw new KeyriseError('ERR_CONFIG_INVALID', { detail: 'no policy is in force yet: the first needs no approval' })
  const [from, to] = [policyDigest(parsePolicy(policy)), policyDigest(await readPolicy(path))]
  await writeRequest(flags, { kind: 'policy-change', kms: identity, from, to })
}

const migration = async (
  flags: RequestFlags & {
    readonly from: string
    readonly to?: string
    readonly toProduct?: string
    readonly flow: readonly string[]
    readonly days: number
  },
): Promise<void> => {
  const { identity } = await inspectLedger(flags.directory)
  for (const flow of flags.flow)
    if (!isFlowPattern(flow)) throw new KeyriseError('ERR_CONFIG_INVALID', { detail: `--flow: ${String(flow)}` })
  const [from, to] = [await measurementOf(flags.from), await targetOf(flags)]
  const notAfterMs = Math.trunc(nodeClock.nowMs()) + flags.days * DAY_MS
  await writeRequest(flags, {
    kind: 'migration',
    kms: identity,
    flows: flags.flow,
    from,
    to,
    notAfterMs,
  })
}

const targetOf = async ({
  to,
  toProduct,
}: {
  readonly to?: string
  readonly toProduct?: string
}): Promise<MigrationGrant['to']> => {
  if ((to === undefined) === (toProduct === undefined))
    throw new KeyriseError('ERR_CONFIG_INVALID', { detail: 'one of --to and --to-product' })
  if (toProduct === undefined) return { measurement: await measurementOf(to ?? '') }
  const [, hex = '', productId, svn] = /^([0-9a-f]{64}):(\d{1,5}):(\d{1,5})$/.exec(toProduct) ?? []
  const signer = fromHex(hex)
  if (signer?.length !== 32 || !isProductId(Number(productId)))
    throw new KeyriseError('ERR_CONFIG_INVALID', { detail: '--to-product: 64 hex digits, a product id and an SVN' })
  return { signer, productId: Number(productId), svn: Number(svn) }
}

const breakGlass = async (flags: RequestFlags & { readonly reason: string; readonly hours: number }): Promise<void> => {
  checkReason(flags.reason)
  const { identity } = await inspectLedger(flags.directory)
  const notAfterMs = Math.trunc(nodeClock.nowMs()) + flags.hours * HOUR_MS
  await writeRequest(flags, { kind: 'break-glass', kms: identity, reason: flags.reason, notAfterMs })
}

const release = async (
  flags: RequestFlags & { readonly flow: string; readonly image: string; readonly hours: number },
): Promise<void> => {
  const { identity, flows } = await inspectLedger(flags.directory)
  const flow = parseFlowId(flags.flow)
  const state = flows.get(flow)
  if (state === undefined)
    throw new KeyriseError('ERR_CONFIG_INVALID', {
      detail: `the ledger does not know ${flow}: there is nothing to release`,
    })
  const notAfterMs = Math.trunc(nodeClock.nowMs()) + flags.hours * HOUR_MS
  const measurement = await measurementOf(flags.image)
  await writeRequest(flags, {
    kind: 'release',
    kms: identity,
    flow,
    incarnation: state.incarnation + 1,
    measurement,
    notAfterMs,
  })
}

const approve = async (
  path: string,
  { key: keyPath, out, json }: { readonly key: string; readonly out: string; readonly json?: boolean },
): Promise<void> => {
  const { request } = parseApproved(await readText(path))
  const privateKey = await readSignerKey(keyPath)
  const approval: Approval = {
    key: publicKeyOf(privateKey),
    signature: copyBytes(sign(null, encodeRequest(request), privateKey)),
  }
  await writeText(out, formatApproval(approval))
  const key = toHex(approval.key)
  printResult(json === true, { file: out, key }, [`${key} approves:`, formatRequest(request)])
}

/** Whether it counts the KMS decides when it is made use of. */
const submit = async (path: string, flags: RunningFlags & { readonly approval: readonly string[] }): Promise<void> => {
  const { request, approvals } = parseApproved(await readText(path))
  const more = await Promise.all(flags.approval.map(async (file) => parseApproval(await readText(file))))
  const approved = { request, approvals: [...approvals, ...more] }
  const answer = await askRunning(flags, approvedRoute, { request: formatApproved(approved) })
  if (answer === undefined) {
    const { identity } = await inspectLedger(flags.directory)
    const ledger = await FileLedger.open(nodeFileSystem, flags.directory, identity)
    try {
      await ledger.addApproved(approved)
    } finally {
      await ledger.close()
    }
  }
  const count = approved.approvals.length
  printResult(flags.json === true, { request: request.kind, approvals: count, running: answer !== undefined }, [
    `${request.kind}: ${count} approvals handed in${answer === undefined ? ', for when the KMS starts' : ''}`,
  ])
}

const reload = async (flags: RunningFlags): Promise<void> => {
  const { policy } = await askKms(flags, reloadPolicyRoute, undefined)
  printResult(flags.json === true, { policy }, [`in force: the policy with the digest ${policy}`])
}

/** RFC 8410 §4: the last 32 bytes of an Ed25519 SubjectPublicKeyInfo are the key. */
const publicKeyOf = (privateKey: KeyObject): Bytes => {
  if (privateKey.asymmetricKeyType !== 'ed25519')
    throw new KeyriseError('ERR_CONFIG_INVALID', { detail: 'an approver’s key is an Ed25519 key' })
  return copyBytes(createPublicKey(privateKey).export({ format: 'der', type: 'spki' }).subarray(-32))
}

const measurementOf = async (path: string): Promise<Bytes> => copyBytes((await inspectImage(path)).image.measurement)

const writeRequest = async ({ out, json }: RequestFlags, request: ApprovalRequest): Promise<void> => {
  const text = formatRequest(request)
  await writeText(out, text)
  printResult(json === true, { file: out, request: request.kind }, [text])
}

const readText = async (path: string): Promise<string> => new TextDecoder().decode(await readSmallFile(path))

const writeText = async (path: string, text: string): Promise<void> => {
  using output = openOutput({ path, isForced: false, mode: 0o644 })
  await output.write(new TextEncoder().encode(`${text}\n`))
  output.commit({ isDurable: true })
}
