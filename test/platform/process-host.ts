import { readFileSync } from 'node:fs'
import { parseImage } from '../../platform/image.js'
import { findTools, ProcessRecipe } from '../../platform/process-recipe.js'
import { startProcess } from '../../platform/process.js'
import { SimulatedPlatform } from '../../platform/simulated.js'
import { configurationFor, Host, launchTarget } from '../enclave/target.js'
import { childrenOf } from './processes.js'

/**
 * A host of its own, which launches an enclave in a process, says its number, and waits to be killed.
 * Arguments: the image’s file, a directory for the platform, what the enclave does meanwhile (`wait`, `spin`), and what is to
 * end it with its host (`signal`, `watcher`).
 */
const [imageFile = '', directory = '', task = '', ending = ''] = process.argv.slice(2)
const image = parseImage(readFileSync(imageFile, 'utf8'))

/** As on a system whose tools know no parent death signal. */
const startWatched = (): Host => {
  const recipe = new ProcessRecipe(directory, { tools: { ...findTools(), setpriv: undefined } })
  const { measurement, source } = image
  const start = { configuration: configurationFor('process'), measurement, flow: 'flow', task: 'task' }
  const { kill, ...instance } = startProcess(recipe, source, start)
  return new Host({ ...instance, kill, terminate: kill })
}

const host =
  ending === 'watcher'
    ? startWatched()
    : new Host(launchTarget(await SimulatedPlatform.open(directory), image, { isolation: 'process' }))
await host.ready()
if (task === 'spin') {
  void host.call('spin').catch(() => undefined)
  await new Promise((resolve) => setTimeout(resolve, 100))
}
const [enclave] = childrenOf(process.pid).filter(({ commandLine }) => commandLine.includes('--input-type=commonjs'))
process.stdout.write(`${String(enclave?.pid)}\n`)
