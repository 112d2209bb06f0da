import { createHash, createPrivateKey, createPublicKey, generateKeyPairSync } from 'node:crypto'
import { appendFile, chmod, readFile, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import test from 'ava'
import { composeImage, readImage, writeImage } from '../../platform/image.js'
import { makePlace } from '../kms/served.js'
import { run } from './command.js'

const MODULE = fileURLToPath(new URL('../../../test/host/notebook.enclave.ts', import.meta.url))

test('image build bundles and measures; inspect says the same of the file', async (t) => {
  const { root } = await makePlace(t)
  const out = join(root, 'notebook.image')
  const built = await run(['image', 'build', MODULE, '--out', out, '--json'])
  t.deepEqual([built.code, built.err], [0, ''])
  const { measurement, name } = JSON.parse(built.out) as { measurement: string; name: string }
  t.is(
    measurement,
    createHash('sha256')
      .update(await readFile(out))
      .digest('hex'),
  )
  t.is((await run(['image', 'inspect', out, '--json'])).out, built.out)
  const lines = (await run(['image', 'inspect', out])).out
  const debug = await run(['image', 'build', MODULE, '--out', join(root, 'debug.image'), '--debug', '--json'])
  t.like(JSON.parse(debug.out), { name: 'notebook', debug: true })
  t.not((JSON.parse(debug.out) as { measurement: string }).measurement, measurement)
  t.true(lines.includes(measurement) && lines.includes(name))
})

test('inspect shows every call with its limits and flags, in a table', async (t) => {
  const { root } = await makePlace(t)
  const out = join(root, 'declared.image')
  const ecalls = [
    { name: 'add', receives: false, yields: false, switchless: true, ocalls: [], limits: { inputSizeBytesMax: 2048 } },
    {
      name: 'follow',
      receives: true,
      yields: true,
      switchless: false,
      ocalls: ['ask'],
      limits: { inputSizeBytesMax: 1000, outputSizeBytesMax: 3 * 1024 * 1024, inFlightMax: 4 },
    },
  ]
  const ocalls = [{ name: 'ask', yields: false, limits: { perSecondMax: 10, deadlineMs: 500 } }]
  const image = composeImage(
    { format: 'keyrise-image/2', name: 'declared', svn: 3, debug: true, ecalls, ocalls, refusals: ['late'] },
    "'use strict'",
  )
  await writeImage(out, image)
  t.like(JSON.parse((await run(['image', 'inspect', out, '--json'])).out), { ecalls, ocalls, debug: true, svn: 3 })
  const lines = (await run(['image', 'inspect', out])).out.split('\n')
  t.true(lines.includes('debug        YES: errors and output leave it in full'), lines.join('\n'))
  t.deepEqual(lines.slice(-7), [
    'ECALL   input   output  in flight  streams  switchless  OCALLs',
    'add     2 KiB   –       –          –        yes         –',
    'follow  1000 B  3 MiB   4          in out   –           ask',
    '',
    'OCALL  input  output  per second  deadline  streams',
    'ask    –      –       10          500 ms    –',
    '',
  ])
})

test('an image is signed with a key that keygen made; inspect says whose it is, and whether it is valid', async (t) => {
  const { root } = await makePlace(t)
  const [out, key] = [join(root, 'notebook.image'), join(root, 'signer.pem')]
  await run(['image', 'build', MODULE, '--out', out])
  const made = await run(['image', 'keygen', '--out', key, '--json'])
  const { signer } = JSON.parse(made.out) as { signer: string }
  const pem = await readFile(key, 'utf8')
  t.is((await stat(key)).mode & 0o777, 0o600)
  const spki = createPublicKey(pem).export({ format: 'der', type: 'spki' })
  t.is(signer, createHash('sha256').update(spki).digest('hex'))
  const seed = createPrivateKey(pem).export({ format: 'jwk' }).d ?? ''
  t.is(createPrivateKey(pem).export({ format: 'pem', type: 'pkcs8' }), pem)

  const signed = await run(['image', 'sign', out, '--key', key, '--product-id', '7', '--json'])
  t.like(JSON.parse(signed.out), { signer, productId: 7, name: 'notebook', file: `${out}.sig` })
  for (const { out: text, err } of [made, signed]) t.false(`${text}${err}`.includes(seed))
  t.like(JSON.parse((await run(['image', 'inspect', out, '--json'])).out), { signature: 'valid', signer, productId: 7 })
  t.deepEqual((await readImage(out)).signature?.productId, 7)

  await appendFile(out, ' ')
  const { code, out: text } = await run(['image', 'inspect', out, '--json'])
  t.is(code, 1)
  t.like(JSON.parse(text), { signature: 'invalid', refusal: 'it is another image’s', signer: null })
})

test('a signer’s key is never replaced, nor taken where others may read it or where it is none', async (t) => {
  const { root } = await makePlace(t)
  const [out, key] = [join(root, 'x.image'), join(root, 'signer.pem')]
  await writeImage(
    out,
    composeImage(
      { format: 'keyrise-image/2', name: 'x', svn: 3, debug: false, ecalls: [], ocalls: [], refusals: [] },
      "'use strict'",
    ),
  )
  const failed = async (...flags: string[]) => JSON.parse((await run([...flags, '--json'])).err) as unknown
  const sign = ['image', 'sign', out, '--key', key, '--product-id', '0']
  t.like(await failed(...sign), { error: { code: 'ERR_FILE_UNREADABLE' } })
  await run(['image', 'keygen', '--out', key])
  const before = await readFile(key)
  t.like(await failed('image', 'keygen', '--out', key), { error: { code: 'ERR_FILE_EXISTS' } })
  t.deepEqual(await readFile(key), before)
  await chmod(key, 0o640)
  t.like(await failed(...sign), { error: { code: 'ERR_CONFIG_INVALID' } })
  await chmod(key, 0o600)
  t.is((await run(sign)).code, 0)
  await writeFile(key, 'x')
  t.like(await failed(...sign), { error: { code: 'ERR_CONFIG_INVALID' } })
  const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey
  await writeFile(key, rsa.export({ format: 'pem', type: 'pkcs8' }))
  t.like(await failed(...sign), { error: { code: 'ERR_KEY_INVALID' } })
  t.is((await run([...sign.slice(0, -1), '65536'])).code, 2)
})

test('what is no image, or no enclave module, is refused by code', async (t) => {
  const { root } = await makePlace(t)
  const file = join(root, 'file.js')
  await writeFile(file, 'export default 1')
  const failed = async (...flags: string[]) => JSON.parse((await run([...flags, '--json'])).err) as unknown
  t.like(await failed('image', 'inspect', file), { error: { code: 'ERR_IMAGE_INVALID' } })
  t.like(await failed('image', 'inspect', join(root, 'none')), { error: { code: 'ERR_IMAGE_INVALID' } })
  t.like(await failed('image', 'build', file, '--out', join(root, 'x')), { error: { code: 'ERR_IMAGE_BUILD' } })
})
