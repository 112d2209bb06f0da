import test from 'ava'
import { MemoryFileSystem, type FileOperation } from '../../faults/index.js'
import type { EntryName } from '../../protocol/names.js'
import { DirectoryStore } from '../../storage/index.js'
import { startInProcess } from '../kms/in-process.js'
import { readAll, startWorld, text } from './flow-world.js'

/** A flow on two simulated disks, and what its checkpoints have synced on each since the last look. */
const setUp = async () => {
  const synced: string[] = []
  const disk = (name: string) =>
    new MemoryFileSystem(({ kind }: FileOperation) => {
      if (kind === 'sync' || kind === 'syncDirectory') synced.push(`${name} ${kind}`)
      return undefined
    })
  const world = await startWorld()
  const kms = await startInProcess({ fs: disk('ledger') })
  const store = new DirectoryStore('/sealed', disk('store'))
  const launch = () =>
    world.launch({ kms: kms.service, platform: kms.platform, kmsIdentity: kms.keyring.identity, store })
  const { flow } = await launch()
  return { flow, launch, taken: () => synced.splice(0).sort() }
}

const entriesOf = (count: number, round: number, direct: boolean) =>
  Object.fromEntries(
    Array.from({ length: count }, (_, index) => {
      const bytes = text(`${round}`.padEnd(4096, '.'))
      return [`session/${index}` as EntryName, direct ? { to: 'kms' as const, bytes } : bytes]
    }),
  )

test('a checkpoint of any number of entries is durable by three fsyncs: its file, that file’s name, the ledger', async (t) => {
  const { flow, launch, taken } = await setUp()
  taken()
  for (let round = 1; round <= 4; round++) {
    await flow.checkpoint(entriesOf(16, round, false))
    // From the second round on it also deletes what the one before has written.
    t.deepEqual(taken(), ['ledger sync', 'store sync', 'store syncDirectory'], `round ${round}`)
  }
  t.is(Object.keys(await readAll(await launch())).length, 16)
})

test('entries sealed straight to the KMS need an fsync for each half, and share those of the directory', async (t) => {
  const { flow, taken } = await setUp()
  taken()
  await flow.checkpoint(entriesOf(16, 1, true))
  const counts = new Map<string, number>()
  for (const kind of taken()) counts.set(kind, (counts.get(kind) ?? 0) + 1)
  t.is(counts.get('ledger sync'), 1)
  t.is(counts.get('store sync'), 33)
  const shared = counts.get('store syncDirectory') ?? 0
  t.true(shared >= 3 && shared <= 8, String(shared))
})
