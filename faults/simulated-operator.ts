import { copyBytes } from '../protocol/bytes.js'
import { Secret } from '../protocol/crypto/secret.js'
import { KeyriseError } from '../protocol/errors.js'
import type { Clock, FileSystem, Random, Store } from '../protocol/ports.js'
import { rotateKeyring, withNextKey } from '../kms/change-keys.js'
import type { OpenKms } from '../kms/open-kms.js'
import { readKeyringFile } from '../kms/custody-files.js'
import { openKeyring, restoreKms } from '../kms/place.js'
import { rewrapPairs } from '../kms/rewrap.js'
import { ROOT_ID, withChange } from '../kms/root-keys.js'
import { publish } from '../storage/index.js'
import { oneTurn } from './drive-clock.js'
import type { Operator } from './scenario.js'
import { backUp, restoreBackup, restoreElsewhere, takeKeys, type CustodyDesk } from './simulated-custody.js'
import { rekeyAside } from './simulated-rekey.js'
import { unreachable } from './simulated-wire.js'

/** Where the KMS of a simulated world keeps what must survive it. */
export const PLACE = { directory: '/kms', custody: '/custody/keyring.age' } as const
export const PASSPHRASE = new TextEncoder().encode('a passphrase that no file holds')

/** What an operator has before him: the KMS’s machine, and the host’s store. */
export interface OperatorDesk {
  /** The one that runs, if one does. */
  readonly kms: () => OpenKms | undefined
  /** The KMS’s disk. */
  readonly fs: () => FileSystem
  readonly store: () => Store
  readonly clock: Clock
  /** Other numbers each time. */
  readonly nextRandom: (use: string) => Random
  /** Ends the KMS and starts it from its disk. */
  readonly startAgain: () => Promise<void>
  /** The KMS that runs has other keys than when it started. */
  readonly onKeys: () => Promise<void>
}

/** The operator of a simulated world, who does what the commands do, with the real code. */
export const simulatedOperator = ({
  kms: kmsNow,
  fs: disk,
  store,
  clock,
  nextRandom,
  startAgain,
  onKeys,
}: OperatorDesk): Operator => {
  const running = (): OpenKms => {
    const kms = kmsNow()
    if (kms === undefined) throw unreachable()
    return kms
  }
  /** What every command on the KMS’s files takes. */
  const withPlace = async <T>(
    work: (options: { place: typeof PLACE; passphrase: Secret; fs: FileSystem }) => Promise<T>,
  ): Promise<T> => {
    using passphrase = Secret.take(copyBytes(PASSPHRASE))
    return await work({ place: PLACE, passphrase, fs: disk() })
  }
  /** A command that takes the log, so that the KMS has to start again. */
  const custody = (command: (desk: CustodyDesk) => Promise<unknown>) => async (): Promise<void> => {
    await withPlace((options) => command({ ...options, clock }))
    await startAgain()
  }
  return {
    backUp: custody((desk) => backUp(desk)),
    restoreBackup: custody(restoreBackup),
    restoreElsewhere: custody(restoreElsewhere),
    breakGlass: custody(takeKeys),
    rekeyAside: () => withPlace((options) => rekeyAside({ ...options, clock }, nextRandom('rekey'))),
    restart: startAgain,
    rotate: async () => {
      await withPlace((options) => rotateKeyring({ ...options, random: nextRandom('rotation') }))
      await startAgain()
    },
    rewrap: () =>
      withPlace(async (options) => {
        using keyring = await openKeyring(options)
        for await (const pair of rewrapPairs({ keyring, store: store(), prefix: '', random: nextRandom('rewrap') }))
          if (pair.status === 'failed') throw pair.error
      }),
    restore: async () => {
      await withPlace(async (options) => {
        await publish(options.fs, '/custody', 'keyring.age', await readKeyringFile(options))
        await restoreKms({ ...options, newLedger: false })
      })
      await startAgain()
    },
    rotateOnline: async () => {
      const random = nextRandom('rotation')
      const kms = running()
      await withPlace(({ passphrase }) =>
        withNextKey({ id: ROOT_ID, suite: 'x25519' }, random, (change) => kms.changeKeys(passphrase, change)),
      )
      await onKeys()
    },
    retire: () => withPlace(({ passphrase }) => retire(running, passphrase)),
  }
}

/** Disables all keys but the newest, once nothing is sealed to them. */
const retire = async (running: () => OpenKms, passphrase: Secret): Promise<void> => {
  const kms = running()
  kms.rewraps.start()
  while (kms.rewraps.progress.state === 'running') {
    if (running() !== kms) throw unreachable()
    await oneTurn()
  }
  const [, ...older] = kms.rootKeys
  for (const { key, state } of older) {
    for await (const { name } of kms.dependentsOf(key)) throw new KeyriseError('ERR_KEY_STATE', { detail: name })
    if (state !== 'disabled') await kms.changeKeys(passphrase, (keys) => withChange(keys, key, { kind: 'disable' }))
  }
}
