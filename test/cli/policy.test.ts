import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import test from 'ava'
import { FileLedger } from '../../kms/file-ledger.js'
import { formatPolicy, parsePolicy, policyDigest } from '../../kms/policy-file.js'
import { parseApproved } from '../../kms/request-file.js'
import { buildImage, writeImage } from '../../platform/image.js'
import { fromHex, toHex } from '../../protocol/bytes.js'
import { nodeFileSystem } from '../../storage/index.js'
import { serveKms } from '../../kms/server.js'
import { initPlace, makePlace, PASSPHRASE } from '../kms/served.js'
import { ended, firstLine, run, start } from './command.js'

const NOTEBOOK = fileURLToPath(new URL('../host/notebook.enclave.js', import.meta.url))
const HEX = '07'.repeat(32)

test('policy diff says what a change would do, in lines and as JSON', async (t) => {
  const { root } = await makePlace(t)
  const [before, after] = [join(root, 'before.json'), join(root, 'after.json')]
  await writeFile(before, JSON.stringify({ platforms: [HEX], images: [] }))
  await writeFile(after, JSON.stringify({ platforms: [HEX], images: [{ name: 'party', measurement: HEX }] }))
  const said = await run(['policy', 'diff', before, after])
  const [from, to] = await Promise.all(
    [before, after].map(async (path) => toHex(policyDigest(parsePolicy(await readFile(path, 'utf8'))))),
  )
  const allowed = `  allows   the image ${HEX}, as party, would get keys for every flow`
  t.like(said, { code: 0, out: `${allowed}\nfrom ${from ?? ''}\nto   ${to ?? ''}\n` })
  const same = `nothing would change\nfrom ${from ?? ''}\nto   ${from ?? ''}\n`
  t.like(await run(['policy', 'diff', before, before]), { code: 0, out: same })
  t.like(JSON.parse((await run(['policy', 'diff', before, after, '--json'])).out), {
    ...{ from, to },
    changes: [{ effect: 'allows' }],
  })
  t.regex((await run(['policy', 'diff', before, join(root, 'none.json')])).err, /ERR_CONFIG_INVALID.*none\.json/)
})

test('approvers make keys and sign a change of the policy, and the log of a KMS that does not run takes it', async (t) => {
  const place = await makePlace(t)
  const { identity } = await initPlace(place)
  const files = (name: string): string => join(place.root, name)
  const keys = await Promise.all(
    ['anna', 'ben'].map(async (name) => (await run(['policy', 'keygen', '--out', files(`${name}.pem`)])).out.trim()),
  )
  const approvers = ['anna', 'ben'].map((name, index) => ({ name, key: keys[index] }))
  const first = { platforms: [HEX], images: [], approvers, approvals: { change: 2 } }
  const ledger = await FileLedger.open(nodeFileSystem, place.directory, identity)
  await ledger.setPolicy(formatPolicy(parsePolicy(JSON.stringify(first))), null)
  await ledger.close()
  await writeFile(files('second.json'), JSON.stringify({ ...first, allowDebug: true }))
  const at = ['--directory', place.directory]
  const request = files('change.json')
  t.like(await run(['policy', 'request', 'change', files('second.json'), ...at, '--out', request]), { code: 0 })
  for (const name of ['anna', 'ben']) {
    const flags = ['--key', files(`${name}.pem`), '--out', files(`${name}.approval`)]
    const approved = await run(['policy', 'approve', request, ...flags])
    t.like(approved, { code: 0, err: '' })
    t.regex(approved.out, /approves:\n.*"request": "policy-change"/s)
  }
  const approvals = ['anna', 'ben'].flatMap((name) => ['--approval', files(`${name}.approval`)])
  t.regex(
    (await run(['policy', 'submit', request, ...approvals, ...at])).out,
    /2 approvals handed in, for when the KMS starts/,
  )
  const kept = await FileLedger.inspect(nodeFileSystem, place.directory)
  t.is(kept?.approved.length, 1)
  t.like(kept?.approved[0], { request: { kind: 'policy-change', kms: identity } })
  t.regex(await readFile(request, 'utf8'), /"kms": "[0-9a-f]{64}"/)
  // One that runs takes it too, wherever its admin socket is, and goes on.
  const socket = files('admin.sock')
  const { directory, custody } = place
  const policy = parsePolicy(JSON.stringify(first))
  const listening = { port: 0, insecureLoopback: true, adminSocket: socket }
  const served = await serveKms({ directory, custody, passphrase: PASSPHRASE, policy, ...listening })
  t.teardown(() => served.close())
  const handedIn = await run(['policy', 'submit', request, ...approvals, ...at, '--admin-socket', socket, '--json'])
  t.deepEqual(JSON.parse(handedIn.out), { request: 'policy-change', approvals: 2, running: true })
})

test('a request about a flow that the ledger does not know, or a pattern that is none, is refused', async (t) => {
  const place = await makePlace(t)
  await initPlace(place)
  const out = ['--directory', place.directory, '--out', join(place.root, 'request.json')]
  const unknown = await run(['policy', 'request', 'release', '--flow', 'credit', '--image', 'none', ...out])
  t.regex(unknown.err, /ERR_CONFIG_INVALID.*does not know credit/)
  const wrong = await run(['policy', 'request', 'migration', '--from', 'a', '--to', 'b', '--flow', 'a*b', ...out])
  t.regex(wrong.err, /ERR_CONFIG_INVALID.*--flow: a\*b/)
})

test('a migration grant names an image or a product, and one of the two', async (t) => {
  const place = await makePlace(t)
  const { identity } = await initPlace(place)
  const party = join(place.root, 'party.image')
  await writeImage(party, await buildImage(NOTEBOOK))
  const grant = (out: string, ...to: string[]) => {
    const at = ['--directory', place.directory, '--out', join(place.root, out)]
    return run(['policy', 'request', 'migration', '--from', party, '--flow', 'credit-*', ...at, ...to])
  }
  const made = await grant('product.json', '--to-product', `${HEX}:7:2`)
  t.is(made.code, 0, made.err)
  t.like(parseApproved(await readFile(join(place.root, 'product.json'), 'utf8')).request, {
    kind: 'migration',
    kms: identity,
    flows: ['credit-*'],
    to: { signer: fromHex(HEX), productId: 7, svn: 2 },
  })
  for (const product of ['', HEX, `${HEX}:7`, `${HEX.slice(2)}:7:2`, `${HEX}:99999:2`, `${HEX}:7:-1`])
    t.regex((await grant('wrong.json', '--to-product', product)).err, /ERR_CONFIG_INVALID.*--to-product/, product)
  for (const both of [[], ['--to', party, '--to-product', `${HEX}:7:2`]])
    t.regex((await grant('wrong.json', ...both)).err, /one of --to and --to-product/)
})

test('a KMS that serves reads its policy file again, and a wrong one changes nothing', async (t) => {
  const place = await makePlace(t)
  await initPlace(place)
  const file = join(place.root, 'policy.json')
  await writeFile(file, JSON.stringify({ platforms: [HEX], images: [] }))
  const at = ['--directory', place.directory]
  const serving = [
    '--custody',
    place.custody,
    '--policy',
    file,
    '--port',
    '0',
    '--insecure-loopback',
    '--passphrase-fd',
    '3',
  ]
  const served = start(['kms', 'serve', ...at, ...serving, '--json'], 'correct horse\n')
  await firstLine(served)
  const changed = { platforms: [HEX], images: [{ name: 'party', measurement: HEX }] }
  await writeFile(file, JSON.stringify(changed))
  const policy = toHex(policyDigest(parsePolicy(JSON.stringify(changed))))
  t.deepEqual(JSON.parse((await run(['policy', 'reload', ...at, '--json'])).out), { policy })
  await writeFile(file, '{')
  t.regex((await run(['policy', 'reload', ...at])).err, /ERR_CONFIG_INVALID/)
  served.kill()
  await ended(served)
  t.is(
    (await FileLedger.inspect(nodeFileSystem, place.directory))?.policy,
    formatPolicy(parsePolicy(JSON.stringify(changed))),
  )
  t.regex((await run(['policy', 'reload', ...at])).err, /ERR_KMS_UNREACHABLE/)
})
