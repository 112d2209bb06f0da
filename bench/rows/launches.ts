import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { cp, symlink } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Worker } from 'node:worker_threads'
import { buildImage, type Image } from '../../host/index.js'
import { composeImage } from '../../platform/image.js'
import { bundle } from '../../platform/bundle.js'
import type { Isolation } from '../../protocol/configuration.js'
import { EnclaveWorld } from '../enclave-world.js'
import type { Measurement } from '../measurement.js'
import { Scratch } from '../scratch.js'
import { median } from '../statistics.js'
import type definition from './calls.enclave.js'

/** This file is compiled to dist/bench/rows/. */
const DIST = fileURLToPath(new URL('../../', import.meta.url))
const ENTRY = new URL('calls.enclave.js', import.meta.url)

type CallsImage = Image<typeof definition>

/** The same image, whose realm SES has hardened: of a copy of the runtime with one file another. */
const buildWithSes = async ({ manifest }: CallsImage): Promise<CallsImage> => {
  await using scratch = await Scratch.make()
  const copy = (folder: string): Promise<void> => cp(join(DIST, folder), join(scratch.path, 'dist', folder), COPIED)
  await Promise.all([copy('enclave'), copy('protocol'), copy('bench')])
  await cp(join(DIST, 'bench/hardening/ses.js'), join(scratch.path, 'dist/enclave/harden.js'))
  await cp(join(DIST, '../package.json'), join(scratch.path, 'package.json'))
  await symlink(join(DIST, '../node_modules'), join(scratch.path, 'node_modules'))
  const module = (file: string): string => JSON.stringify(join(scratch.path, 'dist', file))
  const contents = [
    `import ${module('enclave/boot.js')}`,
    `import definition from ${module('bench/rows/calls.enclave.js')}`,
    `import { openFlow } from ${module('enclave/flow.js')}`,
    `import { startEnclave } from ${module('enclave/runtime.js')}`,
    'void startEnclave(definition, openFlow)',
  ]
  return composeImage<typeof definition>(manifest, (await bundle(contents.join('\n'), scratch.path)).source)
}
const COPIED = { recursive: true }

/** Starts something, and resolves with what ends it once it has answered. */
type Start = () => Promise<() => Promise<unknown>>

const emptyWorker: Start = async () => {
  const worker = new Worker("require('node:worker_threads').parentPort.postMessage('')", { eval: true })
  await once(worker, 'message')
  return () => worker.terminate()
}

const emptyProcess: Start = async () => {
  const child = spawn(process.execPath, ['--eval', "process.stdout.write('.')"], {
    stdio: ['ignore', 'pipe', 'ignore'],
  })
  const closed = once(child, 'close')
  await once(child.stdout, 'data')
  return () => closed
}

/** From nothing to the first answer: of an enclave with everything that its launch takes, and of what is under it. */
export const launches: Measurement = {
  names: ['launch'],
  async measure({ runs }, { say }) {
    const ours = await buildImage<typeof definition>(ENTRY)
    const ses = await buildWithSes(ours)
    await using world = await EnclaveWorld.make(ours, ses)
    const answerOf =
      (image: CallsImage, isolation?: Isolation): Start =>
      async () => {
        const enclave = await world.launch(image, isolation)
        await enclave.ecalls.echo(new Uint8Array(8))
        return () => enclave.close()
      }
    const kinds = [
      ['empty worker', emptyWorker],
      ['empty process', emptyProcess],
      ['keyrise, worker', answerOf(ours)],
      ['the same with SES', answerOf(ses)],
      ['keyrise, process', answerOf(ours, 'process')],
    ] as const satisfies [string, Start][]
    const took: number[][] = kinds.map(() => [])
    for (let run = 0; run < runs; run++) {
      say(`launch: run ${run + 1} of ${runs}`)
      for (const [index, [, start]] of kinds.entries()) {
        const startMs = performance.now()
        const end = await start()
        took[index]?.push(performance.now() - startMs)
        await end()
      }
    }
    const points = kinds.map(([name], index) => [name, median(took[index] ?? [])] as const)
    const series = [{ name: 'to the first answer', points }]
    return { curves: { launch: { what: 'cold launch', x: 'what', y: 'ms', series } } }
  },
}
