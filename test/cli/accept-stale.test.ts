import test from 'ava'
import { FileLedger } from '../../kms/file-ledger.js'
import { fromHex, toHex } from '../../protocol/bytes.js'
import { parseFlowId } from '../../protocol/names.js'
import { nodeFileSystem } from '../../storage/index.js'
import { digestOf } from '../kms/attested-client.js'
import { makePlace } from '../kms/served.js'
import { run } from './command.js'
import { flowState, headOf } from '../kms/flow-state.js'

const PASSPHRASE = 'correct horse battery staple\n'

test('accept-stale leaves a signed receipt with the reason, for a flow that the ledger knows', async (t) => {
  const { directory, custody } = await makePlace(t)
  const at = ['--directory', directory, '--custody', custody, '--passphrase-fd', '3']
  const kms = (...flags: string[]) => run(['kms', ...flags, ...at], PASSPHRASE)
  const { identity } = JSON.parse((await kms('init', '--work-factor', '10', '--json')).out) as { identity: string }
  const reason = ['--reason', 'the store’s disk burnt']
  const unknown = await kms('accept-stale', 'flow-1', ...reason, '--json')
  t.is(unknown.code, 1)
  t.like(JSON.parse(unknown.err), { error: { code: 'ERR_CONFIG_INVALID' } })
  const ledger = await FileLedger.open(nodeFileSystem, directory, fromHex(identity) ?? digestOf(0))
  await ledger.compareAndSwap(parseFlowId('flow-1'), undefined, flowState({ head: headOf(4), incarnation: 7 }))
  await ledger.close()
  const accepted = await kms('accept-stale', 'flow-1', ...reason, '--json')
  t.is(accepted.code, 0)
  const receipt = JSON.parse(accepted.out) as { signature: string }
  t.like(receipt, { flow: 'flow-1', epoch: 4, digest: toHex(digestOf(4)), incarnation: 7, reason: reason[1] })
  const [kept] = (await FileLedger.inspect(nodeFileSystem, directory))?.receipts.slice(-1) ?? []
  t.is(kept && toHex(kept.subarray(-64)), receipt.signature)
  const again = await kms('accept-stale', 'flow-1', ...reason)
  t.regex(again.out, /given up +epoch 4, where the store does not show it/)
  const without = await kms('accept-stale', 'flow-1')
  t.not(without.code, 0)
  t.regex(without.err, /--reason/)
})
