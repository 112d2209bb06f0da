import type { Command } from 'commander'
import { copyBytes, type Bytes } from '../protocol/bytes.js'
import { KeyriseError } from '../protocol/errors.js'
import { Secret } from '../protocol/crypto/secret.js'
import { breakGlass } from '../kms/break-glass.js'
import { fingerprintOf } from '../kms/custodians.js'
import { placeOf } from '../kms/place.js'
import { nodeClock, nodeFileSystem } from '../storage/index.js'
import { demandSealed } from './admin-client.js'
import { withEither, withPassphrase, type PlaceFlags } from './kms-place.js'
import { openOutput } from './output.js'
import { askWord, hasTerminal } from './passphrase.js'
import { printResult, table } from './terminal.js'

interface BreakGlassFlags extends PlaceFlags {
  readonly reason: string
  readonly out: string
  readonly confirm?: string
}

const SECRET_MODE = 0o600

/** `keyrise kms break-glass` */
export const addBreakGlassCommand = (kms: Command): void => {
  withEither(
    kms
      .command('break-glass')
      .description('in an emergency: write the root keys to a file that the age command opens envelopes with'),
  )
    .requiredOption('--reason <text>', 'why; the log keeps it, in a signed receipt')
    .requiredOption(
      '--out <file>',
      'the identity file, readable by this user alone: keep it off disks that are backed up',
    )
    .option('--confirm <fingerprint>', 'the fingerprint of the KMS; otherwise it is asked for')
    .action(run)
}

const run = async (flags: BreakGlassFlags): Promise<void> => {
  await demandSealed(flags)
  // Before anything is recorded: a receipt of keys that could not be written helps nobody.
  using output = openOutput({ path: flags.out, isForced: false, mode: SECRET_MODE })
  const broken = await withPassphrase(flags, false, async (bytes) => {
    using passphrase = Secret.take(bytes)
    const options = { place: placeOf(flags), passphrase, fs: nodeFileSystem, clock: nodeClock }
    return await breakGlass({ ...options, reason: flags.reason, confirm: (identity) => confirmBy(flags, identity) })
  })
  await write(output, broken.identities)
  for (const { key, pem } of broken.pemFiles) {
    using file = openOutput({ path: `${flags.out}-${key}.pem`, isForced: false, mode: SECRET_MODE })
    await write(file, pem)
  }
  const { keys, receipt } = broken
  const time = new Date(receipt.timeMs).toISOString()
  printResult(
    flags.json === true,
    { file: flags.out, keys, receipt: receipt.sequence, time, reason: flags.reason, approvers: receipt.approvers },
    table([
      ['file', flags.out],
      ['keys', keys.join(', ')],
      ['receipt', `number ${String(receipt.sequence)}, ${time}`],
      ['next', 'docs/custody.md, “Break glass”; rotate the root key afterwards, and destroy the file'],
    ]),
  )
}

const write = async (output: ReturnType<typeof openOutput>, secret: Secret): Promise<void> => {
  using file = secret
  const bytes = file.expose(copyBytes)
  try {
    await output.write(bytes)
  } finally {
    bytes.fill(0)
  }
  output.commit({ isDurable: true })
}

/** Whoever asks says by its fingerprint whose keys are to leave it. */
const confirmBy = async ({ confirm, out }: BreakGlassFlags, identity: Bytes): Promise<void> => {
  const fingerprint = fingerprintOf(identity)
  if (confirm === undefined && !hasTerminal())
    throw new KeyriseError('ERR_NOT_CONFIRMED', { detail: 'no terminal to ask on: give --confirm FINGERPRINT' })
  if (confirm === undefined)
    process.stderr.write(
      `Every root key of the KMS ${fingerprint} is written to ${out}: who has it opens all that is sealed.\n`,
    )
  const typed = confirm ?? (await askWord('Type the fingerprint to go on: '))
  if (typed !== fingerprint) throw new KeyriseError('ERR_NOT_CONFIRMED', { detail: `the KMS is ${fingerprint}` })
}
