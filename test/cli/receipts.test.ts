import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'ava'
import { FileLedger } from '../../kms/file-ledger.js'
import { Receipts } from '../../kms/receipts.js'
import { toHex } from '../../protocol/bytes.js'
import { ed25519Signer } from '../../protocol/crypto/keys.js'
import { nodeRandom } from '../../protocol/crypto/primitives.js'
import { Secret } from '../../protocol/crypto/secret.js'
import { parseFlowId } from '../../protocol/names.js'
import { receiptDigest } from '../../protocol/receipts.js'
import { nodeClock, nodeFileSystem } from '../../storage/index.js'
import { makePlace } from '../kms/served.js'
import { run } from './command.js'

test('receipts are listed and exported while the KMS runs, and verified with the file and the identity alone', async (t) => {
  const { directory } = await makePlace(t)
  const signer = ed25519Signer(Secret.random(32, nodeRandom))
  const identity = toHex(signer.publicKey)
  await nodeFileSystem.makeDirectory(directory)
  await FileLedger.create(nodeFileSystem, directory, signer.publicKey)
  const ledger = await FileLedger.open(nodeFileSystem, directory, signer.publicKey)
  t.teardown(() => ledger.close())
  const receipts = new Receipts({ ledger, signer: { identity: signer.publicKey, sign: signer.sign }, clock: nodeClock })
  await receipts.record('unlock')
  await receipts.record('override', { flow: parseFlowId('flow-1'), reason: 'the disk burnt' })
  const own = await receipts.record('denial', { flow: parseFlowId('flow-2'), outcome: 'ERR_FENCED' })

  const listed = await run(['receipts', 'list', '--directory', directory])
  t.regex(
    listed.out,
    /^1 .* unlock .*\n2 .* override {2}flow-1 {2}reason="the disk burnt"\n3 .* denial {2}flow-2 {2}outcome=ERR_FENCED\n$/,
  )
  const ofFlow = await run(['receipts', 'list', '--directory', directory, '--flow', 'flow-1', '--json'])
  t.like(JSON.parse(ofFlow.out), { sequence: 2, kms: identity, kind: 'override', reason: 'the disk burnt' })
  const ofKind = await run(['receipts', 'list', '--directory', directory, '--kind', 'unlock'])
  t.regex(ofKind.out, /^1 [^\n]* unlock[^\n]*\n$/)
  t.like(await run(['receipts', 'list', '--directory', directory, '--kind', 'other']), { code: 1, out: '' })

  const file = join(directory, 'receipts.cbor')
  const exported = await run(['receipts', 'export', '--directory', directory, '--out', file, '--json'])
  t.deepEqual(JSON.parse(exported.out), { receipts: 3, identity })
  const again = await run(['receipts', 'export', '--directory', directory, '--out', file, '--json'])
  t.like(JSON.parse(again.err), { error: { code: 'ERR_FILE_EXISTS' } })

  const ownFile = join(directory, 'own.cbor')
  const identityFile = join(directory, 'identity.txt')
  await writeFile(ownFile, own)
  await writeFile(identityFile, `${identity}\n`)
  const head = `3:${toHex(receiptDigest(own))}`
  const verify = (...flags: string[]) => run(['receipts', 'verify', file, ...flags, '--json'])
  const sound = await verify('--identity', identityFile, '--receipt', ownFile, '--head', head)
  t.deepEqual([sound.code, JSON.parse(sound.out)], [0, { ok: true, receipts: 3, head, findings: [] }])
  const plain = await run(['receipts', 'verify', file, '--identity', identity])
  t.is(plain.out, `3 receipts, whole and in order; head ${head}\n`)

  const later = await verify('--identity', identity, '--head', `4:${'0'.repeat(64)}`)
  t.is(later.code, 1)
  t.like(JSON.parse(later.out), { ok: false, findings: [{ problem: 'truncated', sequence: 4 }] })
  const stranger = await run(['receipts', 'verify', file, '--identity', 'a'.repeat(64)])
  t.is(stranger.code, 1)
  t.regex(stranger.out, /^foreign {2}1 {2}it is of another KMS/)
  for (const flags of [
    ['--identity', 'a'.repeat(64), '--receipt', ownFile],
    ['--identity', ownFile],
    ['--identity', identity, '--head', 'x'],
  ])
    t.like(JSON.parse((await verify(...flags)).err), { error: { code: 'ERR_CONFIG_INVALID' } }, flags.join(' '))
})
