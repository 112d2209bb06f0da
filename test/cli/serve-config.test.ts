import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import { resolveConfig, type ConfigSources } from '../../cli/serve-config.js'
import { makePlace } from '../kms/served.js'
import { run } from './command.js'

const resolve = (text: object | string, more: Partial<ConfigSources> = {}) =>
  resolveConfig({
    file: { path: '/etc/keyrise/kms.json', text: typeof text === 'string' ? text : JSON.stringify(text) },
    environment: {},
    flags: {},
    ...more,
  })

const PLACE = { directory: 'state', policy: '/srv/policy.json' }

test('flags win over the environment, which wins over the file; paths in the file are relative to it', (t) => {
  const { config, sources } = resolve(
    { ...PLACE, host: 'a', port: 1, adminSocket: 'a.sock' },
    {
      environment: { KEYRISE_KMS_HOST: 'b', KEYRISE_KMS_PORT: '2', KEYRISE_KMS_INSECURE_LOOPBACK: 'true', HOME: '/' },
      flags: { port: 3, json: true },
    },
  )
  t.deepEqual(config, {
    directory: '/etc/keyrise/state',
    policy: '/srv/policy.json',
    host: 'b',
    port: 3,
    insecureLoopback: true,
    logLevel: 'info',
    adminSocket: '/etc/keyrise/a.sock',
  })
  t.like(sources, {
    directory: '/etc/keyrise/kms.json',
    host: 'KEYRISE_KMS_HOST',
    port: '--port',
    insecureLoopback: 'KEYRISE_KMS_INSECURE_LOOPBACK',
  })
  t.like(resolve(PLACE).sources, { port: 'default', host: 'default' })
})

test('what is wrong is refused by key and source', (t) => {
  const refused = (message: RegExp, text: object | string, more?: Partial<ConfigSources>) =>
    t.throws(() => resolve(text, more), { code: 'ERR_CONFIG_INVALID', message })
  refused(/configuration \(\/etc\/keyrise\/kms\.json\): it is not JSON/, '{')
  refused(/configuration \(.*\): an object/, '[]')
  refused(/prot \(\/etc\/keyrise\/kms\.json\): no such key/, { ...PLACE, prot: 1 })
  refused(/__proto__ \(.*\): no such key/, '{"__proto__": 1}')
  for (const port of ['7600', -1, 65_536, 1.5, null])
    refused(/port \(\/etc\/keyrise\/kms\.json\): a whole number from 0 to 65535/, { ...PLACE, port })
  refused(/insecureLoopback \(.*\): true or false/, { ...PLACE, insecureLoopback: 'yes' })
  refused(/host \(.*\): a text/, { ...PLACE, host: '' })
  refused(/port \(KEYRISE_KMS_PORT\): a whole number/, PLACE, { environment: { KEYRISE_KMS_PORT: '0x10' } })
  refused(/KEYRISE_KMS_PROT \(the environment\): no such key/, PLACE, { environment: { KEYRISE_KMS_PROT: '1' } })
  refused(/policy \(--policy, KEYRISE_KMS_POLICY or the file\): it is needed/, { directory: 'd' })
  refused(/tlsKey \(--tls-key\): it is needed with tlsCert and clientCa/, { ...PLACE, tlsCert: 'c', clientCa: 'a' })
  refused(/adminHost .*: it is needed with adminClientCa/, { ...PLACE, adminTokenFile: 't' })
  const admin = { ...PLACE, adminHost: 'h', adminPort: 1 }
  refused(/adminClientCa .*: it or adminTokenFile is needed/, admin)
  refused(/adminClientCa .*and not both/, { ...admin, adminClientCa: 'a', adminTokenFile: 't' })
  refused(/logLevel \(.*\): one of error, warn, info, debug/, { ...PLACE, logLevel: 'loud' })
  refused(/tlsCert .*: it is needed with adminHost/, { ...PLACE, adminHost: 'h', adminPort: 1, adminClientCa: 'a' })
})

test('kms serve --print-config says every setting and where it comes from, and serves nothing', async (t) => {
  const root = await mkdtemp(join(tmpdir(), 'keyrise-config-'))
  t.teardown(() => rm(root, { recursive: true, force: true }))
  const file = join(root, 'kms.json')
  await writeFile(file, JSON.stringify({ directory: 'kms', policy: 'policy.json' }))
  const env = { ...process.env, KEYRISE_KMS_PORT: '7' }
  const printed = await run(['kms', 'serve', '--config', file, '--print-config', '--json'], undefined, env)
  t.deepEqual([printed.code, printed.err], [0, ''])
  t.deepEqual(JSON.parse(printed.out), {
    host: { value: '127.0.0.1', source: 'default' },
    port: { value: 7, source: 'KEYRISE_KMS_PORT' },
    insecureLoopback: { value: false, source: 'default' },
    logLevel: { value: 'info', source: 'default' },
    directory: { value: join(root, 'kms'), source: file },
    policy: { value: join(root, 'policy.json'), source: file },
  })
  const missing = await run(['kms', 'serve', '--config', join(root, 'none.json'), '--json'])
  t.is(missing.code, 1)
  t.like(JSON.parse(missing.err), { error: { code: 'ERR_CONFIG_INVALID' } })
})

test('a token that others than its owner may read is refused before anything is served', async (t) => {
  const { root, directory, custody } = await makePlace(t)
  const names = ['tls.crt', 'tls.key', 'ca.crt', 'token', 'policy.json'].map((name) => join(root, name))
  for (const name of names) await writeFile(name, '{"platforms":[],"images":[]}', { mode: 0o600 })
  const [cert = '', key = '', ca = '', token = '', policy = ''] = names
  const serve = () =>
    run([
      ...['kms', 'serve', '--directory', directory, '--custody', custody, '--policy', policy],
      ...['--tls-cert', cert, '--tls-key', key, '--client-ca', ca, '--port', '0'],
      ...['--admin-host', '127.0.0.1', '--admin-port', '0', '--admin-token-file', token],
    ])
  for (const mode of [0o640, 0o604]) {
    await chmod(token, mode)
    t.regex((await serve()).err, /ERR_CONFIG_INVALID.*adminTokenFile.*chmod 600/s)
  }
  await chmod(token, 0o600)
  t.notRegex((await serve()).err, /adminTokenFile/)
})

test('registered stores come from the file, whose directories are relative to it, or as the same JSON from the environment', (t) => {
  const stores = { party: { directory: 'sealed' } }
  t.deepEqual(resolve({ ...PLACE, stores }).config.stores, { party: { directory: '/etc/keyrise/sealed' } })
  const environment = { KEYRISE_KMS_STORES: '{"party":{"directory":"/mnt/sealed"}}' }
  t.deepEqual(resolve(PLACE, { environment }).config.stores, { party: { directory: '/mnt/sealed' } })
  for (const wrong of [
    [],
    'x',
    { party: '/x' },
    { party: { directory: 1 } },
    { party: { directory: '/x', host: 'y' } },
  ])
    t.throws(() => resolve({ ...PLACE, stores: wrong }), { code: 'ERR_CONFIG_INVALID', message: /stores \(/ })
})
