import type { Command } from 'commander'
import { toHex } from '../protocol/bytes.js'
import type { Image } from '../platform/image.js'
import { printResult, table } from './terminal.js'

/** `keyrise image …`. The bundler takes a while to load, so only these commands load it. */
export const addImageCommands = (image: Command): void => {
  image
    .command('build')
    .description('bundle an enclave module into one image and measure it')
    .argument('<module>', 'the module whose default export is defineEnclave(…)')
    .requiredOption('--out <file>', 'where to write the image')
    .option('--json', 'print one JSON object')
    .action(async (module: string, { out, json }: { out: string; json?: boolean }) => {
      const { buildImage, writeImage } = await import('../platform/image.js')
      const built = await buildImage(module)
      await writeImage(out, built)
      print(json === true, built)
    })
  image
    .command('inspect')
    .description('print what an image declares, and its measurement')
    .argument('<file>', 'an image')
    .option('--json', 'print one JSON object')
    .action(async (file: string, { json }: { json?: boolean }) => {
      const { readImage } = await import('../platform/image.js')
      print(json === true, await readImage(file))
    })
}

const print = (isJson: boolean, { manifest, measurement, source }: Image): void => {
  const { name, svn, ecalls, ocalls, refusals } = manifest
  const result = {
    name,
    svn,
    measurement: toHex(measurement),
    sizeBytes: Buffer.byteLength(source),
    ecalls,
    ocalls,
    refusals,
  }
  const rows = Object.entries(result).map(
    ([key, value]) => [key, Array.isArray(value) ? value.join(' ') || '–' : String(value)] as const,
  )
  printResult(isJson, result, table(rows))
}
