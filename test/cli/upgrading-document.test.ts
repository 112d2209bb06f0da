import { spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import test from 'ava'
import { connectKms, DirectoryStore, launch, SimulatedPlatform } from '../../host/index.js'
import { serveKms } from '../../kms/server.js'
import { buildImage, writeImage } from '../../platform/image.js'
import { fromHex, toHex } from '../../protocol/bytes.js'
import { initPlace, makePlace, PASSPHRASE } from '../kms/served.js'
import { COMMAND } from './command.js'
import type upgraded from './upgraded.enclave.js'

const ROOT = fileURLToPath(new URL('../../../', import.meta.url))

/** One version of an enclave, as the page’s step 1 has it. */
const sourceOf = (svn: number): string =>
  readFileSync(join(ROOT, 'test/cli/upgraded.enclave.ts'), 'utf8').replace('svn: 1', `svn: ${svn}`)

/** Runs a line of the page in `cwd`, by a shell as people do, with the passphrase where it would be asked for. */
const runLine = (line: string, cwd: string): Promise<string> => {
  const asks = line.includes('--custody') ? ' --passphrase-fd 3' : ''
  const command = line.replace(/^npx keyrise /, `"${process.execPath}" "${COMMAND}" `) + asks
  const child = spawn('sh', ['-c', command], { cwd, stdio: ['ignore', 'pipe', 'pipe', 'pipe'] })
  const pipe = child.stdio[3]
  if (pipe && 'end' in pipe) pipe.on('error', () => undefined).end(PASSPHRASE)
  let said = ''
  for (const stream of [child.stdout, child.stderr])
    stream?.setEncoding('utf8').on('data', (text: string) => (said += text))
  return new Promise((resolve, reject) =>
    child.once('close', (code) => (code === 0 ? resolve(said) : reject(new Error(`${line}: ${code}: ${said}`)))),
  )
}

test('docs/upgrading.md: a new image, a grant, a rehearsal and a recovery, by the commands of the page', async (t) => {
  const page = readFileSync(join(ROOT, 'docs/upgrading.md'), 'utf8')
  const lines = [...page.matchAll(/```sh\n([^]*?)```/g)].flatMap(([, block = '']) => block.trim().split('\n'))
  const [request, approve, submit, check, drill, ...others] = lines
  t.deepEqual(others, [])
  const place = await makePlace(t)
  const { root, directory, custody } = place
  await initPlace(place)
  await symlink(join(ROOT, 'node_modules'), join(root, 'node_modules'))
  const build = async (svn: number, name: string) => {
    await writeFile(join(root, 'credit.enclave.ts'), sourceOf(svn))
    const image = await buildImage<typeof upgraded>(join(root, 'credit.enclave.ts'))
    await writeImage(join(root, name), image)
    return image
  }
  const [older, newer] = [await build(1, 'old.image'), await build(2, 'new.image')]
  const platform = await SimulatedPlatform.open(join(root, 'machine'))
  const anna = (await runLine('npx keyrise policy keygen --out anna.pem', root)).trim()
  const policy = {
    platforms: [platform.publicKey],
    images: [older, newer].map(({ measurement }, index) => ({ name: `credit-${index}`, measurement })),
    approvers: [{ name: 'anna', key: fromHex(anna) ?? new Uint8Array(0) }],
  }
  const text = JSON.stringify(policy, (_, value: unknown) => (value instanceof Uint8Array ? toHex(value) : value))
  await writeFile(join(root, 'policy.json'), text)
  const served = await serveKms({ directory, custody, policy, passphrase: PASSPHRASE, port: 0, insecureLoopback: true })
  t.teardown(() => served.close())
  const kms = await connectKms(served.url)
  t.teardown(() => kms.close())
  const options = { platform, kms, store: new DirectoryStore(join(root, 'sealed')), flow: 'credit-2026' }
  const before = await launch({ ...options, image: older })
  await before.ecalls.keep('of the older one')
  await before.close()
  await t.throwsAsync(launch({ ...options, image: newer }), { code: 'ERR_POLICY_DENIED' })
  await t.throwsAsync(runLine(check ?? '', root), { message: /no migration grant/ })

  for (const line of [request, approve]) await runLine(line ?? '', root)
  t.regex(await runLine(submit ?? '', root), /migration: 1 approvals handed in\n/)
  t.regex(await runLine(check ?? '', root), /a migration grant lets this one take it over/)
  await runLine(drill ?? '', root)
  const after = await launch({ ...options, image: newer })
  t.is(await after.ecalls.recall(), 'of the older one')
  await after.close()
  await t.throwsAsync(launch({ ...options, image: older }), { code: 'ERR_POLICY_DENIED' })
})
