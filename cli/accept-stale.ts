import type { Command } from 'commander'
import { toHex } from '../protocol/bytes.js'
import { parseFlowId } from '../protocol/names.js'
import { Secret } from '../protocol/crypto/secret.js'
import { acceptStale } from '../kms/accept-stale.js'
import { placeOf } from '../kms/place.js'
import { nodeClock, nodeFileSystem } from '../storage/index.js'
import { demandSealed } from './admin-client.js'
import { withEither, withPassphrase, type PlaceFlags } from './kms-place.js'
import { printResult, table } from './terminal.js'

interface AcceptStaleFlags extends PlaceFlags {
  readonly reason: string
}

/** `keyrise kms accept-stale` */
export const addAcceptStaleCommand = (kms: Command): void => {
  withEither(
    kms
      .command('accept-stale')
      .argument('<flow>', 'the flow whose recovery is refused')
      .description('let the next recovery of a flow take what its store shows: what is newer is given up'),
  )
    .requiredOption('--reason <text>', 'why; the ledger keeps it, in a signed receipt')
    .action(accept)
}

const accept = async (claimedFlow: string, flags: AcceptStaleFlags): Promise<void> => {
  const flow = parseFlowId(claimedFlow)
  await demandSealed(flags)
  const {
    epoch = 0,
    headDigest,
    incarnation,
    timeMs,
    reason,
    signature,
    sequence,
  } = await withPassphrase(flags, false, async (bytes) => {
    using passphrase = Secret.take(bytes)
    const place = placeOf(flags)
    return await acceptStale({ place, passphrase, fs: nodeFileSystem, clock: nodeClock, flow, reason: flags.reason })
  })
  const time = new Date(timeMs).toISOString()
  printResult(
    flags.json === true,
    {
      ...{ flow, reason, time, epoch, digest: headDigest === undefined ? null : toHex(headDigest), incarnation },
      ...{ receipt: sequence, signature: toHex(signature) },
    },
    table([
      ['flow', flow],
      ['given up', `epoch ${epoch}, where the store does not show it`],
      ['reason', reason ?? ''],
      ['receipt', String(sequence)],
      ['next', 'start the KMS again, or unlock it; then launch the enclave'],
    ]),
  )
}
