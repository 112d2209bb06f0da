import { createPublicKey, verify } from 'node:crypto'
import { chmod, mkdtemp, readdir, rename, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import { toHex, type Bytes } from '../../protocol/bytes.js'
import { sha256 } from '../../protocol/sha256.js'
import { parseFlowId } from '../../protocol/names.js'
import { readEvidence } from '../../protocol/evidence.js'
import { composeImage, parseImage } from '../../platform/image.js'
import { SimulatedPlatform } from '../../platform/simulated.js'
import { buildTarget, CONFIGURATION, configurationFor, Host, launchTarget, withPlatform } from '../enclave/target.js'

const image = buildTarget()

const verifies = (publicKey: Bytes, message: Uint8Array, signature: Uint8Array): boolean => {
  const key = createPublicKey({
    key: { kty: 'OKP', crv: 'Ed25519', x: Buffer.from(publicKey).toString('base64url') },
    format: 'jwk',
  })
  return verify(null, message, key, signature)
}

test('an image is not started in another isolation than its configuration says', async (t) => {
  const source = await image
  await withPlatform((platform) => {
    const start = { flow: parseFlowId('flow'), task: parseFlowId('task') }
    for (const [isolation, said] of [
      ['worker', 'process'],
      ['process', 'worker'],
    ] as const)
      t.throws(() => platform.launch(source, { ...start, isolation, configuration: configurationFor(said) }), {
        code: 'ERR_CONFIG_INVALID',
      })
    return Promise.resolve()
  })
})

test('evidence binds the nonce, the key, the measurement, the SVN and the launch configuration', async (t) => {
  await withPlatform(async (platform) => {
    const { measurement } = await image
    const host = new Host(launchTarget(platform, await image))
    await host.ready()
    const evidence = (await host.call('attest', {})) as Uint8Array
    const { claims, toSign, signature } = readEvidence(evidence)
    t.deepEqual(claims, {
      nonce: new Uint8Array(32).fill(1),
      confirmationKey: new Uint8Array(32).fill(2),
      measurement,
      name: 'target',
      svn: 3,
      configDigest: sha256(CONFIGURATION),
      debug: false,
      signed: null,
    })
    t.true(verifies(platform.publicKey, toSign, signature))
    await host.instance.terminate()
  })
})

test('an instance cannot have evidence for anything but itself', async (t) => {
  await withPlatform(async (platform) => {
    const host = new Host(launchTarget(platform, await image))
    await host.ready()
    for (const claims of [
      { measurement: new Uint8Array(32) },
      { name: 'other' },
      { svn: 99 },
      { configDigest: new Uint8Array(32) },
      { debug: true },
      { signed: { signer: new Uint8Array(32), productId: 1 } },
      { signer: new Uint8Array(32) },
      { productId: 1 },
      { nonce: new Uint8Array(31) },
      { confirmationKey: 'x'.repeat(32) },
      { nonce: new Uint8Array(2000) },
    ]) {
      t.is(await host.call('attest', claims), 'ERR_LAUNCH_FAILED')
    }
    t.true((await host.call('attest', {})) instanceof Uint8Array)
    await host.instance.terminate()
  })
})

test('only the measured string runs', async (t) => {
  await withPlatform(async (platform) => {
    const built = await image
    const other = composeImage({ ...built.manifest, name: 'other' }, "'use strict'")
    t.throws(() => launchTarget(platform, { ...built, source: other.source }), { code: 'ERR_IMAGE_INVALID' })
    t.throws(() => launchTarget(platform, { ...built, source: `${built.source} ` }), { code: 'ERR_IMAGE_INVALID' })
    t.throws(() => launchTarget(platform, { ...built, measurement: other.measurement }), { code: 'ERR_IMAGE_INVALID' })
    t.throws(
      () => launchTarget(platform, { ...built, source: { toString: () => built.source } as unknown as string }),
      { code: 'ERR_IMAGE_INVALID' },
    )
    // The manifest counts as it stands in the string, whatever the object says.
    const lying = new Host(
      launchTarget(platform, { ...built, manifest: { ...built.manifest, name: 'liar', svn: 1000 } }),
    )
    await lying.ready()
    t.like(readEvidence((await lying.call('attest', {})) as Uint8Array).claims, { name: 'target', svn: 3 })
    await lying.instance.terminate()
  })
})

test('the string is read once: it cannot change between measuring and running', async (t) => {
  await withPlatform(async (platform) => {
    const built = await image
    const other = parseImage(built.source.replace(/\n[^]*/, '\n'))
    let reads = 0
    const flipping = {
      manifest: built.manifest,
      measurement: built.measurement,
      get source() {
        return reads++ === 0 ? built.source : other.source
      },
    }
    const host = new Host(launchTarget(platform, flipping))
    await host.ready()
    t.is(reads, 1)
    await host.instance.terminate()
  })
})

const withDirectory = async (use: (directory: string) => Promise<void>): Promise<void> => {
  const directory = await mkdtemp(join(tmpdir(), 'keyrise-fuses-'))
  try {
    await use(directory)
  } finally {
    await chmod(directory, 0o700)
    await rm(directory, { recursive: true })
  }
}

test('a platform keeps its key: made once, readable by its user alone', async (t) => {
  await withDirectory(async (directory) => {
    const path = join(directory, 'made/here')
    const [first, second] = [await SimulatedPlatform.open(path), await SimulatedPlatform.open(path)]
    t.is(toHex(first.publicKey), toHex(second.publicKey))
    t.is((await stat(join(path, 'platform.key'))).mode & 0o777, 0o600)
    t.deepEqual(await readdir(path), ['platform.key'])
  })
})

test('of several that open a new directory at once, all get one key', async (t) => {
  await withDirectory(async (directory) => {
    const opened = await Promise.all(Array.from({ length: 8 }, () => SimulatedPlatform.open(directory)))
    t.is(new Set(opened.map(({ publicKey }) => toHex(publicKey))).size, 1)
    t.deepEqual(await readdir(directory), ['platform.key'])
  })
})

test('a key file that is damaged, readable by others or a link is refused, and kept', async (t) => {
  await withDirectory(async (directory) => {
    const key = join(directory, 'platform.key')
    await SimulatedPlatform.open(directory)
    await chmod(key, 0o644)
    await t.throwsAsync(SimulatedPlatform.open(directory), { code: 'ERR_CONFIG_INVALID', message: /chmod 600/ })
    await chmod(key, 0o600)
    await rename(key, join(directory, 'elsewhere'))
    await symlink(join(directory, 'elsewhere'), key)
    await t.throwsAsync(SimulatedPlatform.open(directory), { code: 'ERR_CONFIG_INVALID', message: /symbolic link/ })
    await rm(key)
    for (const size of [0, 31, 33]) {
      await writeFile(key, new Uint8Array(size), { mode: 0o600 })
      await t.throwsAsync(SimulatedPlatform.open(directory), { code: 'ERR_CONFIG_INVALID', message: /damaged/ })
    }
  })
})

test('a directory that cannot be written is said at once', async (t) => {
  await withDirectory(async (directory) => {
    await writeFile(join(directory, 'file'), '')
    await t.throwsAsync(SimulatedPlatform.open(join(directory, 'file/below')), { code: 'ERR_STORE_UNWRITABLE' })
  })
})
