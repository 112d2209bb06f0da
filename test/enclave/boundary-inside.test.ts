import { Worker } from 'node:worker_threads'
import test from 'ava'
import { fileURLToPath } from 'node:url'
import { ISOLATIONS, type Isolation } from '../../protocol/configuration.js'
import { bundle, directoryOf } from '../../platform/bundle.js'
import { buildTarget, Host, launchTarget, withPlatform } from './target.js'

const image = buildTarget()

const ask = (name: string, isolation: Isolation): Promise<string[]> =>
  withPlatform(async (platform) => {
    const host = new Host(launchTarget(platform, await image, { isolation }))
    await host.ready()
    const found = (await host.call(name)) as string[]
    await host.instance.terminate()
    return found
  })

/** The same question to a worker without hardening: the control, which must find something. */
const askBare = async (question: string): Promise<string[]> => {
  const inside = fileURLToPath(new URL('./inside.js', import.meta.url))
  const { source } = await bundle(
    `import { ${question} } from ${JSON.stringify(inside)}\nimport { parentPort } from 'node:worker_threads'\nparentPort.postMessage(${question}())`,
    directoryOf(inside),
  )
  const worker = new Worker(source, { eval: true })
  const found = await new Promise<string[]>((resolve, reject) => worker.once('message', resolve).once('error', reject))
  await worker.terminate()
  return found
}

test('code in an enclave has no way to files, processes, workers, the inspector or Node’s insides', async (t) => {
  for (const isolation of ISOLATIONS) t.deepEqual(await ask('probe', isolation), [], isolation)
  t.true((await askBare('probeCapabilities')).length > 12)
})

test('no value leads to a constructor that makes code from text', async (t) => {
  for (const isolation of ISOLATIONS) t.deepEqual(await ask('escapes', isolation), [], isolation)
  t.true((await askBare('listEscapes')).length > 100)
})

test('no intrinsic can be extended, replaced or redefined', async (t) => {
  for (const isolation of ISOLATIONS) t.deepEqual(await ask('softIntrinsics', isolation), [], isolation)
})
