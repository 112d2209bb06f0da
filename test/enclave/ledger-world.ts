import { MemoryFileSystem } from '../../faults/index.js'
import type { FileSystem } from '../../protocol/ports.js'
import { publish, readWhole } from '../../storage/index.js'
import { startInProcess } from '../kms/in-process.js'
import { text, type World } from './flow-world.js'

/** A KMS whose ledger is as it was when `fs` was copied; its keyring is the same. */
export const restartedWith = (world: World, fs: FileSystem) =>
  startInProcess({ fs, keyring: world.kms.keyring, platform: world.kms.platform })

export const copyOfLedger = async ({ kms }: World): Promise<FileSystem> => {
  const fs = new MemoryFileSystem()
  await fs.makeDirectory('/kms')
  const ledger = await readWhole(kms.fs, '/kms/ledger.log', 1024 * 1024)
  await publish(fs, '/kms', 'ledger.log', ledger ?? text(''))
  return fs
}
