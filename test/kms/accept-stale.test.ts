import test from 'ava'
import { MemoryFileSystem } from '../../faults/index.js'
import { acceptStale } from '../../kms/accept-stale.js'
import { FileLedger, LEDGER_NAME } from '../../kms/file-ledger.js'
import { AppendLog } from '../../kms/log.js'
import { createKms, prepareDirectory } from '../../kms/place.js'
import { asciiBytes } from '../../protocol/bytes.js'
import { encodeCbor, type Cbor } from '../../protocol/cbor.js'
import { verifyEd25519 } from '../../protocol/crypto/keys.js'
import { nodeRandom } from '../../protocol/crypto/primitives.js'
import { openReceipt } from '../../protocol/crypto/receipts.js'
import { Secret } from '../../protocol/crypto/secret.js'
import { parseFlowId } from '../../protocol/names.js'
import type { FileSystem } from '../../protocol/ports.js'
import { encodeReceiptBody, firstLink } from '../../protocol/receipts.js'
import { encodeStaleAcceptance } from '../../protocol/statements.js'
import { digestOf } from './attested-client.js'
import { startInProcess } from './in-process.js'
import { flowState, headOf } from './flow-state.js'

const flow = parseFlowId('flow-1')
const clock = { nowMs: () => 1_700_000_000_000.5, timer: () => ({ [Symbol.dispose]: () => undefined }) }
const STATE = flowState({ head: headOf(4), incarnation: 7 })

/** A KMS whose ledger knows a flow. */
const setUp = async () => {
  const fs = new MemoryFileSystem()
  const passphrase = Secret.take(asciiBytes('correct horse'))
  const place = { directory: '/kms' }
  await prepareDirectory(fs, place.directory)
  const { identity } = await createKms({ place, passphrase, fs, random: nodeRandom, logN: 10 })
  const open = () => FileLedger.open(fs, place.directory, identity)
  const running = await open()
  await running.compareAndSwap(flow, undefined, STATE)
  const accept = (changes: { flow?: string; reason?: string } = {}) => {
    const { reason = 'the disk burnt' } = changes
    return acceptStale({ place, passphrase, fs, clock, flow: parseFlowId(changes.flow ?? flow), reason })
  }
  return { fs, identity, open, running, accept }
}

test('an acceptance is a receipt that the identity signed, there after a power cut; a KMS that ran answers nothing more', async (t) => {
  const { fs, identity, open, running, accept } = await setUp()
  const { signature, ...receipt } = await accept()
  const given = { epoch: 4, headDigest: digestOf(4), incarnation: 7 }
  t.like(receipt, { kind: 'override', flow, reason: 'the disk burnt', timeMs: 1_700_000_000_000, ...given })
  t.true(verifyEd25519(identity, encodeReceiptBody(receipt), signature))
  t.false(verifyEd25519(identity, encodeReceiptBody({ ...receipt, reason: 'another' }), signature))
  await t.throwsAsync(running.read(flow), { code: 'ERR_LEDGER_TAKEN' })
  fs.restart()
  const [kept] = (await FileLedger.inspect(fs, '/kms'))?.receipts.slice(-1) ?? []
  t.deepEqual(kept && openReceipt(identity, kept), receipt)
  t.deepEqual(await (await open()).read(flow), { ...STATE, staleAccepted: true })
})

test('a reason of no length or too much, a flow that nobody opened, and one that was destroyed are refused', async (t) => {
  const { open, accept } = await setUp()
  for (const reason of ['', ' \n', 'x'.repeat(513)])
    await t.throwsAsync(accept({ reason }), { code: 'ERR_CONFIG_INVALID' })
  await t.throwsAsync(accept({ flow: 'flow-2' }), { code: 'ERR_CONFIG_INVALID', message: /does not know flow-2/ })
  const ledger = await open()
  t.deepEqual(await ledger.read(flow), STATE)
  await ledger.compareAndSwap(flow, STATE, { ...STATE, destroyed: true })
  await t.throwsAsync(accept(), { code: 'ERR_FLOW_DESTROYED' })
})

/** Adds a record as an earlier version wrote it. */
const appendRecord = async (fs: FileSystem, tag: string, fields: Record<string, Cbor>): Promise<void> => {
  const opened = await AppendLog.open(fs, '/kms', LEDGER_NAME, () => ({ link: firstLink(digestOf(0)) }))
  await opened?.log.append({ record: encodeCbor([tag, fields]) })
}

test('an acceptance of before there were receipts counts where the identity signed it, and the flow is known; else ERR_LEDGER_DAMAGED', async (t) => {
  const acceptance = { flow, reason: 'why', timeMs: 1, head: headOf(4), incarnation: 7 }
  const kept = async (changes: Partial<typeof acceptance>) => {
    const { fs, keyring, open } = await startInProcess()
    const ledger = await open()
    await ledger.compareAndSwap(flow, undefined, STATE)
    const signature = keyring.sign(encodeStaleAcceptance(acceptance))
    await appendRecord(fs, 'stale-acceptance', { ...acceptance, signature, ...changes })
    return (await open()).read(flow)
  }
  t.true((await kept({}))?.staleAccepted)
  const unsigned = [{ reason: 'no reason' }, { incarnation: 8 }, { head: headOf(5) }, { timeMs: 2 }]
  for (const changes of unsigned)
    await t.throwsAsync(kept(changes), { code: 'ERR_LEDGER_DAMAGED', message: /signature/ })
})

test('a ledger that was written before there were acceptances and migrations reads as one without', async (t) => {
  const { fs, open } = await setUp()
  const { staleAccepted, svn, signed, predecessors, ...before } = { ...STATE, incarnation: 8, head: headOf(5) }
  await appendRecord(fs, 'flow', { flow, ...before })
  t.deepEqual(await (await open()).read(flow), { ...before, staleAccepted, svn, signed, predecessors })
})

test('a stale claim needs an acceptance, never lowers the head, and leaves no acceptance behind a head that has moved', async (t) => {
  const { connect, ledger } = await startInProcess()
  const client = await connect()
  await client.launch()
  await client.call({ op: 'commit', incarnation: 1, parent: null, head: headOf(1) })
  const claim = (adopt: { epoch: number; incarnation: number } | null, incarnation: number, stale = true) =>
    client.call({
      op: 'claim',
      head: headOf(1),
      incarnation,
      adopt: adopt && { ...headOf(adopt.epoch), incarnation: adopt.incarnation },
      stale,
    })
  const accept = async (): Promise<void> => {
    const state = await ledger.read(flow)
    if (state !== undefined) await ledger.compareAndSwap(flow, state, { ...state, staleAccepted: true })
  }
  await t.throwsAsync(claim(null, 1), { code: 'ERR_LEDGER_CONFLICT' })
  await t.throwsAsync(claim({ epoch: 9, incarnation: 1 }, 1), { code: 'ERR_LEDGER_CONFLICT' })
  await accept()
  t.like(await client.open(), { incarnation: 1, staleAccepted: true })
  await t.throwsAsync(claim({ epoch: 1, incarnation: 1 }, 1), { code: 'ERR_FORK' })
  await t.throwsAsync(claim({ epoch: 9, incarnation: Number.MAX_SAFE_INTEGER }, 1), { code: 'ERR_FORK' })
  // A claim alone may be followed by a crash; the acceptance stays until there is a commit.
  t.is((await claim(null, 1)).reply.incarnation, 2)
  t.true((await client.open()).staleAccepted)
  await client.call({ op: 'commit', incarnation: 2, parent: headOf(1), head: headOf(2) })
  t.false((await client.open()).staleAccepted)
  await accept()
  // One that found the ledger's own state after all ends it too.
  await client.call({ op: 'claim', head: headOf(2), incarnation: 2, adopt: null, stale: false })
  t.false((await client.open()).staleAccepted)
  await accept()
  const stale = { ...headOf(9), incarnation: 40 }
  const { reply } = await client.call({ op: 'claim', head: headOf(2), incarnation: 3, adopt: stale, stale: true })
  t.true(reply.incarnation > 40)
  t.like(await client.open(), { head: headOf(9), incarnation: reply.incarnation, staleAccepted: false })
})
