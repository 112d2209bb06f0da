import { concatBytes, copyBytes, type Bytes } from '../protocol/bytes.js'
import type { Secret } from '../protocol/crypto/secret.js'
import { isKeyriseError, KeyriseError } from '../protocol/errors.js'
import type { Random } from '../protocol/ports.js'
import { hasKeyring, readCustodians } from '../kms/custody-files.js'
import type { Custody } from '../kms/custody.js'
import { ShareCollector, type CustodianSet, type Share } from '../kms/custodians.js'
import { createKms, openKeyring, prepareDirectory } from '../kms/place.js'
import { rekeyKms } from '../kms/rekey.js'
import { publish, readWhole } from '../storage/index.js'
import type { CustodyDesk } from './simulated-custody.js'

/**
 * A KMS beside the one that serves, whose keyring opens by the operator’s passphrase and by custodians’ shares in turn. What is said
 * of it on the disk has to open it, at every start.
 */

type RekeyDesk = Pick<CustodyDesk, 'fs' | 'clock' | 'passphrase'>

const PLACE = { directory: '/shared', custody: '/shared-custody/keyring.age' } as const
/** Stands for the drawers in which custodians keep what they were given. */
const PAPER = '/paper'
const SHARES = { count: 3, threshold: 2 } as const
const PAPER_SIZE_BYTES_MAX = 1 << 16
const NEWLINE = 10

/** Has custodians for a passphrase, or a passphrase for them. Makes the KMS where there is none. */
export const rekeyAside = async (desk: RekeyDesk, random: Random): Promise<void> => {
  const { fs, clock, passphrase: plain } = desk
  const base = { place: PLACE, fs, clock, random }
  for (const directory of [PLACE.directory, '/shared-custody', PAPER]) await prepareDirectory(fs, directory)
  if (!(await hasKeyring(PLACE, fs))) await createKms({ ...base, passphrase: plain, logN: 1 })
  const custodians = await readCustodians(PLACE, fs)
  const next: Custody = custodians === undefined ? { ...SHARES, deliver: deliverTo(fs) } : { passphrase: plain }
  using passphrase = await passphraseOf(desk, custodians)
  await rekeyKms({ ...base, passphrase, next })
}

/** @throws {KeyriseError} what is on the disk does not open the keyring there. */
export const checkAside = async (desk: RekeyDesk): Promise<void> => {
  const { fs, clock } = desk
  if (!(await hasKeyring(PLACE, fs))) return
  using passphrase = await passphraseOf(desk, await readCustodians(PLACE, fs))
  ;(await openKeyring({ place: PLACE, passphrase, fs, clock }))[Symbol.dispose]()
}

const paperOf = ({ set }: CustodianSet): string => Buffer.from(set).toString('hex')

const deliverTo =
  (fs: RekeyDesk['fs']): Extract<Custody, { readonly count: number }>['deliver'] =>
  async (shares: readonly Share[], custodians) => {
    const lines = shares.flatMap(({ text }) => [text.expose(copyBytes), Uint8Array.of(NEWLINE)])
    await publish(fs, PAPER, paperOf(custodians), concatBytes(...lines))
  }

/** The operator’s, or what the last of the custodians’ shares make. */
const passphraseOf = async ({ fs, passphrase }: RekeyDesk, custodians: CustodianSet | undefined): Promise<Secret> => {
  if (custodians === undefined) return passphrase.clone()
  using collector = new ShareCollector(custodians)
  const paper = await readWhole(fs, `${PAPER}/${paperOf(custodians)}`, PAPER_SIZE_BYTES_MAX)
  for (const share of linesOf(paper)) submit(collector, share)
  if (!collector.isComplete) throw new KeyriseError('ERR_CUSTODIANS_INVALID', { detail: 'nobody has their shares' })
  return await collector.join()
}

/** One that is damaged is no share. */
const submit = (collector: ShareCollector, share: Bytes): void => {
  try {
    collector.submit(share)
  } catch (error) {
    if (!isKeyriseError(error, 'ERR_SHARE_INVALID')) throw error
  }
}

const linesOf = (paper: Bytes | undefined): Bytes[] => {
  const lines: Bytes[] = []
  for (let rest = paper ?? new Uint8Array(0); rest.includes(NEWLINE);) {
    const end = rest.indexOf(NEWLINE)
    lines.push(rest.subarray(0, end))
    rest = rest.subarray(end + 1)
  }
  return lines
}
