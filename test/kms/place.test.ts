import test from 'ava'
import { MemoryFileSystem, type FileFault, type FileOperation } from '../../faults/index.js'
import { FileLedger, LEDGER_NAME } from '../../kms/file-ledger.js'
import { openKms } from '../../kms/open-kms.js'
import { createKms, hasKeyring, openKeyring, prepareDirectory, restoreKms, type KmsPlace } from '../../kms/place.js'
import { asciiBytes } from '../../protocol/bytes.js'
import { nodeRandom } from '../../protocol/crypto/primitives.js'
import { Secret } from '../../protocol/crypto/secret.js'
import { parseFlowId } from '../../protocol/names.js'
import { nodeClock, publish, remove } from '../../storage/index.js'
import { digestOf } from './attested-client.js'

const passphrase = Secret.take(asciiBytes('correct horse'))
const PLACE: KmsPlace = { directory: '/kms', custody: '/custody/keyring.age' }

const makeDisk = async () => {
  let fault: (operation: FileOperation) => FileFault | undefined = () => undefined
  const fs = new MemoryFileSystem((operation) => fault(operation))
  await prepareDirectory(fs, '/custody')
  const create = async (place = PLACE) => {
    await prepareDirectory(fs, place.directory)
    return createKms({ place, passphrase, fs, random: nodeRandom, logN: 10 })
  }
  const restore = (newLedger: boolean, place = PLACE) => restoreKms({ place, passphrase, fs, newLedger })
  return { fs, create, restore, setFault: (next: typeof fault) => (fault = next) }
}

test('a KMS that is made is there after a power cut, with the same identity', async (t) => {
  const { fs, create, restore } = await makeDisk()
  const made = await create()
  fs.restart()
  const found = await restore(false)
  t.deepEqual(found.identity, made.identity)
  t.deepEqual(found.keys, made.keys)
  t.regex(found.keys[0]?.recipient ?? '', /^age1[a-z0-9]{58}$/)
  t.is(found.ledger, 'kept')
})

test('init never writes over a keyring, nor makes one beside a ledger that knows flows', async (t) => {
  const { fs, create } = await makeDisk()
  const { identity } = await create()
  await t.throwsAsync(create(), { code: 'ERR_KEYRING_EXISTS' })
  const ledger = await FileLedger.open(fs, '/kms', identity)
  await ledger.compareAndSwap(parseFlowId('a'), undefined, {
    task: parseFlowId('t'),
    image: digestOf(1),
    head: null,
    incarnation: 0,
    destroyed: false,
  })
  await remove(fs, '/custody', 'keyring.age')
  await t.throwsAsync(create(), { code: 'ERR_KEYRING_MISSING' })
  await t.throwsAsync(openKeyring({ place: PLACE, passphrase, fs }), { code: 'ERR_KEYRING_MISSING' })
  t.false(await hasKeyring(PLACE, fs))
})

test('a damaged ledger is no licence for a new keyring', async (t) => {
  const { fs, create } = await makeDisk()
  await create()
  await remove(fs, '/custody', 'keyring.age')
  await publish(fs, '/kms', LEDGER_NAME, new Uint8Array(100))
  await t.throwsAsync(create(), { code: 'ERR_LEDGER_DAMAGED' })
})

test('a crash at any step of init leaves a KMS that is whole, or nothing that hinders the next init', async (t) => {
  const { fs: dry, create } = await makeDisk()
  const before = dry.operationCount
  await create()
  const count = dry.operationCount - before
  t.true(count > 8)
  for (let step = 0; step < count; step++) {
    for (const fault of ['stop-before', 'stop-after'] as const) {
      for (const isKept of [false, true]) {
        const disk = await makeDisk()
        const from = disk.fs.operationCount
        disk.setFault(({ index }) => (index === from + step ? fault : undefined))
        const made = await disk.create().catch(() => undefined)
        disk.setFault(() => undefined)
        disk.fs.restart(() => isKept)
        const again = (await hasKeyring(PLACE, disk.fs)) ? await disk.restore(false) : await disk.create()
        if (made !== undefined) t.deepEqual(again.identity, made.identity)
        t.is((await disk.restore(false)).ledger, 'kept')
      }
    }
  }
})

test('without its ledger a KMS does not start; a new one is begun only on the operator’s word', async (t) => {
  const { fs, create, restore } = await makeDisk()
  const made = await create()
  await remove(fs, '/kms', LEDGER_NAME)
  await t.throwsAsync(
    openKms({
      place: PLACE,
      passphrase,
      fs,
      policy: { platforms: [], images: [] },
      clock: nodeClock,
      random: nodeRandom,
    }),
    { code: 'ERR_LEDGER_MISSING' },
  )
  await t.throwsAsync(restore(false), { code: 'ERR_LEDGER_MISSING' })
  t.like(await restore(true), { ledger: 'new', identity: made.identity })
  t.like(await restore(true), { ledger: 'kept', identity: made.identity })
})

test('a keyring beside another KMS’s ledger is refused', async (t) => {
  const { create, restore } = await makeDisk()
  await create()
  await create({ directory: '/kms-2', custody: '/custody/keyring-2.age' })
  await t.throwsAsync(restore(true, { directory: '/kms', custody: '/custody/keyring-2.age' }), {
    code: 'ERR_LEDGER_DAMAGED',
  })
})

test('custody whose place is not there is said, not made', async (t) => {
  const { fs, create } = await makeDisk()
  await t.throwsAsync(create({ directory: '/kms', custody: '/not-mounted/keyring.age' }), {
    code: 'ERR_STORE_UNWRITABLE',
  })
  await t.throwsAsync(fs.list('/not-mounted'))
})
