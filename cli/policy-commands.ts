import type { Command } from 'commander'
import { diffFlows, diffPolicies } from '../kms/policy-diff.js'
import { policyDigest } from '../kms/policy-file.js'
import { explainImage, type Reason } from '../kms/policy-explain.js'
import { toHex } from '../protocol/bytes.js'
import { parseFlowId } from '../protocol/names.js'
import { nodeClock } from '../storage/index.js'
import { inspectImage } from './image-inspect.js'
import { inspectLedger } from './inspect-ledger.js'
import { addApprovalCommands } from './policy-approvals.js'
import { readPolicy } from './policy-file.js'
import { EXIT, printResult } from './terminal.js'

/** `keyrise policy …` */
export const addPolicyCommands = (policy: Command): void => {
  addApprovalCommands(policy)
  policy
    .command('check')
    .description('say what an image could do under a policy, and why not')
    .argument('<policy>', 'a policy file')
    .requiredOption('--image <file>', 'an image; its signature lies beside it')
    .option('--flow <id>', 'with this flow')
    .option('--directory <path>', 'the KMS’s directory: who has the flow now, and which grants there are')
    .option('--json', 'print one JSON object')
    .action(check)
  policy
    .command('diff')
    .description('say what a change of policy would allow and forbid')
    .argument('<before>', 'a policy file')
    .argument('<after>', 'the one that would take its place')
    .option('--directory <path>', 'the KMS’s directory: which of its flows would be affected')
    .option('--json', 'print one JSON object')
    .action(diff)
}

interface CheckFlags {
  readonly image: string
  readonly flow?: string
  readonly directory?: string
  readonly json?: boolean
}

/** Exits with 1 where the image would get nothing. */
const check = async (path: string, flags: CheckFlags): Promise<void> => {
  const policy = await readPolicy(path)
  const { image, signature } = await inspectImage(flags.image)
  const { name, svn, debug } = image.manifest
  const signed = signature === undefined ? null : { signer: signature.signer, productId: signature.productId }
  const flow = flags.flow === undefined ? undefined : parseFlowId(flags.flow)
  const ledger = flags.directory === undefined ? undefined : await inspectLedger(flags.directory)
  const known =
    ledger === undefined || flow === undefined
      ? undefined
      : {
          state: ledger.flows.get(flow),
          approved: ledger.approved,
          identity: ledger.identity,
          nowMs: nodeClock.nowMs(),
        }
  const { measurement } = image
  const { allowed, reasons } = explainImage(policy, { measurement, svn, signed, debug }, { flow, known })
  const verdict = `${name}, SVN ${svn}: ${allowed ? 'gets keys' : 'gets no keys'}`
  printResult(flags.json === true, { allowed, reasons }, [verdict, ...reasons.map(line)])
  if (!allowed) process.exitCode = EXIT.failed
}

const diff = async (
  before: string,
  after: string,
  flags: { readonly directory?: string; readonly json?: boolean },
): Promise<void> => {
  const [old, now] = [await readPolicy(before), await readPolicy(after)]
  const ledger = flags.directory === undefined ? undefined : await inspectLedger(flags.directory)
  const changes = [...diffPolicies(old, now), ...(ledger === undefined ? [] : diffFlows(old, now, ledger.flows))]
  const digests = { from: toHex(policyDigest(old)), to: toHex(policyDigest(now)) }
  const lines = changes.length === 0 ? ['nothing would change'] : changes.map(line)
  printResult(flags.json === true, { ...digests, changes }, [...lines, `from ${digests.from}`, `to   ${digests.to}`])
}

const line = ({ effect, text }: Reason): string => `  ${effect.padEnd(7)}  ${text}`
