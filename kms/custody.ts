import type { Bytes } from '../protocol/bytes.js'
import type { Random } from '../protocol/ports.js'
import type { Secret } from '../protocol/crypto/secret.js'
import { encodeCustodians, splitPassphrase, type CustodianSet, type Share } from './custodians.js'

/** What is to open a keyring: a passphrase, borrowed, or the shares of one that nobody is told. */
export type Custody = { readonly passphrase: Secret } | SharedCustody

export interface SharedCustody {
  /** How many custodians there are, and how many of them it takes. */
  readonly count: number
  readonly threshold: number
  /** Hands each custodian a share, for good when it resolves; nothing else has been written by then. Shares are borrowed. */
  readonly deliver: (shares: readonly Share[], custodians: CustodianSet) => Promise<void>
}

/** What a keyring’s files are made of. */
export interface ChosenCustody {
  readonly passphrase: Secret
  /** Their file; undefined where nobody shares the passphrase. */
  readonly custodians: Bytes | undefined
  /** As the receipt says it. */
  readonly words: string
}

/** Lends `use` the passphrase of `custody`, once every custodian has a share of it. @throws {KeyriseError} ERR_CONFIG_INVALID; what `deliver` throws. */
export const withCustody = async <T>(
  custody: Custody,
  { identity, random }: { readonly identity: Uint8Array; readonly random: Random },
  use: (chosen: ChosenCustody) => Promise<T>,
): Promise<T> => {
  if ('passphrase' in custody)
    return use({ passphrase: custody.passphrase, custodians: undefined, words: 'one passphrase' })
  const { count, threshold, deliver } = custody
  const { passphrase, shares, set } = await splitPassphrase({ identity, count, threshold, random })
  try {
    await deliver(shares, set)
    const words = `${String(threshold)} of ${String(count)} custodians`
    return await use({ passphrase, custodians: encodeCustodians(set), words })
  } finally {
    passphrase[Symbol.dispose]()
    for (const { text } of shares) text[Symbol.dispose]()
  }
}
