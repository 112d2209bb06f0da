import type { Command } from 'commander'
import { readWhole, DirectoryReader, nodeFileSystem } from '../storage/index.js'
import { isBackup } from '../kms/backup-file.js'
import { BACKUP_SIZE_BYTES_MAX, openBackupBy } from '../kms/backup.js'
import { Keyring } from '../kms/keyring.js'
import { openKeyring, placeOf } from '../kms/place.js'
import { findImage, type Policy } from '../kms/policy.js'
import { Secret } from '../protocol/crypto/secret.js'
import { isKeyriseError, KeyriseError } from '../protocol/errors.js'
import { parseFlowId } from '../protocol/names.js'
import { each } from './arguments.js'
import { judgeBackup, runDrill, type DrillFinding } from './drill.js'
import { withPassphrase, withPlace, type PlaceFlags } from './kms-place.js'
import { readPolicy } from './policy-file.js'
import type { RehearsedImage } from './rehearsal.js'
import { EXIT, printResult } from './terminal.js'

interface DrillFlags extends PlaceFlags {
  readonly store: readonly string[]
  readonly flow?: readonly string[]
  readonly backup?: readonly string[]
  readonly policy?: string
  readonly image?: string
}

/** `keyrise drill` */
export const addDrillCommand = (drill: Command): void => {
  withPlace(drill)
    .requiredOption('--store <dir>', 'the store’s directory; of a store with mirrors, each of them', each)
    .option('--flow <id>', 'this flow only; may be repeated. Needed where the KMS’s flows are in several stores', each)
    .option(
      '--backup <file>',
      'a file of `kms backup`, or a copy of the keyring: it must open and lack no key version; may be repeated',
      each,
    )
    .option('--policy <file>', 'the policy that the KMS would start with: it must list the image of each flow')
    .option('--image <file>', 'the image that would be launched: the policy must give it keys, and be its flows’')
    .action(run)
}

const run = async (flags: DrillFlags): Promise<void> => {
  const policy = flags.policy === undefined ? undefined : await readPolicy(flags.policy)
  const image = flags.image === undefined ? undefined : await readImage(flags.image)
  if (image !== undefined && policy === undefined)
    throw new KeyriseError('ERR_CONFIG_INVALID', { detail: '--image needs --policy' })
  const flows = flags.flow?.map(parseFlowId)
  const { result, findings } = await withPassphrase(flags, false, async (bytes) => {
    using passphrase = Secret.take(bytes)
    using keyring = await openKeyring({ place: placeOf(flags), passphrase, fs: nodeFileSystem })
    const beside = [
      ...(await judgeBackups(flags.backup ?? [], keyring, passphrase)),
      ...(policy === undefined || image === undefined ? [] : judgeImage(flags, policy, image)),
    ]
    const copies = flags.store.map((directory) => new DirectoryReader(directory))
    const options = { keyring, directory: flags.directory, copies, flows, policy, progress: showProgress(flags) }
    // An image is asked of the flows that are named; the others may be other images’.
    const drilled = await runDrill({ ...options, image: flows === undefined ? undefined : image })
    return { result: drilled, findings: [...beside, ...drilled.findings] }
  })
  if (process.stderr.isTTY && flags.json !== true) process.stderr.write('\r\u001b[K')
  const { flowCount, objectCount } = result
  const summary = `${flowCount} flows, ${objectCount} objects opened, ${findings.length} findings`
  printResult(flags.json === true, { flows: flowCount, objects: objectCount, findings }, [
    ...findings.map(renderFinding),
    summary,
  ])
  if (findings.length > 0) process.exitCode = EXIT.failed
}

const judgeBackups = async (
  paths: readonly string[],
  keyring: Keyring,
  passphrase: Secret,
): Promise<readonly DrillFinding[]> => {
  const findings: DrillFinding[] = []
  for (const path of paths) {
    const file = await readWhole(nodeFileSystem, path, BACKUP_SIZE_BYTES_MAX)
    findings.push(
      ...(await judgeBackup(keyring, path, async () => {
        if (file === undefined) throw new KeyriseError('ERR_KEYRING_MISSING', { detail: path })
        return isBackup(file) ? (await openBackupBy(file, passphrase)).keyring : Keyring.open(file, passphrase)
      })),
    )
  }
  return findings
}

const judgeImage = ({ image: path = '' }: DrillFlags, policy: Policy, image: RehearsedImage): DrillFinding[] => {
  const refused = (code: DrillFinding['code'], detail: string): DrillFinding[] => [
    { flow: '', object: path, code, detail },
  ]
  try {
    findImage(policy, image)
  } catch (error) {
    if (!isKeyriseError(error)) throw error
    return refused(error.code, error.message)
  }
  return image.debug && policy.allowDebug !== true
    ? refused('ERR_EVIDENCE_REFUSED', 'a debug image, and the policy has no allowDebug')
    : []
}

const readImage = async (path: string): Promise<RehearsedImage> => {
  const { inspectImage } = await import('./image-inspect.js')
  const { image, signature } = await inspectImage(path)
  const { manifest, measurement } = image
  const { name, svn, debug } = manifest
  return {
    name,
    svn,
    debug,
    measurement,
    signed: signature === undefined ? null : { signer: signature.signer, productId: signature.productId },
  }
}

const showProgress = ({ json }: DrillFlags): ((flow: string, objectCount: number) => void) => {
  if (json === true || !process.stderr.isTTY) return () => undefined
  return (flow, count) => void process.stderr.write(`\r\u001b[K${flow}  ${count} objects`)
}

const renderFinding = ({ flow, object, code, detail, entries }: DrillFinding): string =>
  [flow, object, code, detail, ...(entries === undefined || entries.length === 0 ? [] : [`holds ${entries.join(' ')}`])]
    .filter((word) => word !== undefined && word !== '')
    .join('  ')
