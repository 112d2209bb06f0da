import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { buildImage, connectKms, DirectoryStore, launch, SimulatedPlatform } from '../../host/index.js'
import { fingerprintOf } from '../../kms/custodians.js'
import { serveKms } from '../../kms/server.js'
import { fromHex, toHex } from '../../protocol/bytes.js'
import type bulk from '../host/bulk.enclave.js'
import { initPlace, makePlace, PASSPHRASE } from '../kms/served.js'
import { withAge } from '../machine.js'
import { COMMAND } from './command.js'

const ROOT = fileURLToPath(new URL('../../../', import.meta.url))

withAge(
  'docs/custody.md: the glass is broken by the commands of the page, and age reads what a flow sealed to the root key',
  async (t) => {
    const { root, directory, custody } = await makePlace(t)
    const shm = join(root, 'shm')
    await mkdir(shm)
    const place = `--directory "${directory}"`
    // What the page leaves out, and what a person would type.
    const shell = (script: string, confirm = ''): string => {
      const keyrise = [
        `keyrise() { case "$1 $2" in`,
        `'kms break-glass') "${process.execPath}" "${COMMAND}" "$@" ${place} --custody "${custody}" --passphrase-fd 3 --confirm ${confirm} 3<passphrase ;;`,
        `'policy approve' | 'policy keygen') "${process.execPath}" "${COMMAND}" "$@" ;;`,
        `*) "${process.execPath}" "${COMMAND}" "$@" ${place} ;; esac; }`,
      ]
      const run = spawnSync('sh', ['-euc', [...keyrise, script.replaceAll('/dev/shm', shm)].join('\n')], { cwd: root })
      if (run.status !== 0) throw new Error(`${script}: ${String(run.stderr)}`)
      return String(run.stdout)
    }
    const page = readFileSync(join(ROOT, 'docs/custody.md'), 'utf8').split('## Break glass')[1] ?? ''
    const [agree = '', breakGlass = '', read = '', ...others] = [...page.matchAll(/ *```sh\n([^]*?)```/g)].map(
      ([, block = '']) => block,
    )
    t.deepEqual(others, [])

    await writeFile(join(root, 'passphrase'), PASSPHRASE)
    const { identity } = await initPlace({ directory, custody })
    const anna = shell('keyrise policy keygen --out anna.pem').trim()
    const image = await buildImage<typeof bulk>(fileURLToPath(new URL('../host/bulk.enclave.js', import.meta.url)))
    const platform = await SimulatedPlatform.open(join(root, 'machine'))
    const served = await serveKms({
      directory,
      custody,
      passphrase: PASSPHRASE,
      policy: {
        platforms: [platform.publicKey],
        images: [{ name: 'bulk', measurement: image.measurement }],
        approvers: [{ name: 'anna', key: fromHex(anna) ?? new Uint8Array(0) }],
        approvals: { change: 1 },
      },
      port: 0,
      insecureLoopback: true,
    })
    const kms = await connectKms(served.url)
    const store = new DirectoryStore(join(root, 'sealed'))
    const party = await launch({ image, platform, store, kms, flow: 'credit-2026' })
    await party.ecalls.write({ count: 2, sizeBytes: 70_000 })
    await party.close()
    await kms.close()
    await served.close()

    const fingerprint = fingerprintOf(identity)
    t.throws(() => shell(breakGlass, fingerprint), { message: /ERR_APPROVAL_NEEDED/ })
    shell(agree)
    t.throws(() => shell(breakGlass, '0'.repeat(16)), { message: /ERR_NOT_CONFIRMED/ })
    shell(breakGlass, fingerprint)
    shell(read)
    const opened = (await readdir(shm)).filter((name) => name.startsWith('direct-')).sort()
    t.is(opened.length, 2)
    for (const name of opened) t.is((await readFile(join(shm, name))).length, 70_000)
    const [rootKey = ''] = (await readdir(shm)).filter((name) => name.startsWith('root-'))
    t.not(toHex(new Uint8Array(await readFile(join(shm, rootKey)))), '')
  },
)
