import type { Command } from 'commander'
import { toHex } from '../protocol/bytes.js'
import { PRODUCT_ID_MAX } from '../protocol/image-signature.js'
import { wholeNumber } from './arguments.js'
import { inspectImage, printImage } from './image-inspect.js'
import { EXIT, printResult, table } from './terminal.js'

/** `keyrise image …`. The bundler takes a while to load, so only these commands load it. */
export const addImageCommands = (image: Command): void => {
  image
    .command('build')
    .description('bundle an enclave module into one image and measure it')
    .argument('<module>', 'the module whose default export is defineEnclave(…)')
    .requiredOption('--out <file>', 'where to write the image')
    .option('--debug', 'make a debug image: errors and output leave it in full; a KMS refuses it unless told otherwise')
    .option('--json', 'print one JSON object')
    .action(build)
  image
    .command('inspect')
    .description('print what an image declares, its measurement and who signed it')
    .argument('<file>', 'an image; its signature lies beside it')
    .option('--json', 'print one JSON object')
    .action(inspect)
  image
    .command('keygen')
    .description('make a signer’s key, an Ed25519 key in PEM, and print the signer')
    .requiredOption('--out <file>', 'where to write the key; never replaced')
    .option('--json', 'print one JSON object')
    .action(keygen)
  image
    .command('sign')
    .description('sign an image’s measurement; the signature is written beside it')
    .argument('<file>', 'an image')
    .requiredOption('--key <file>', 'the signer’s key')
    .requiredOption('--product-id <n>', 'tells apart the products of one signer', wholeNumber(0, PRODUCT_ID_MAX))
    .option('--json', 'print one JSON object')
    .action(sign)
}

interface Flags {
  readonly json?: boolean
}

const build = async (
  module: string,
  flags: Flags & { readonly out: string; readonly debug?: boolean },
): Promise<void> => {
  const { buildImage, writeImage } = await import('../platform/image.js')
  await writeImage(flags.out, await buildImage(module, { debug: flags.debug === true }))
  printImage(flags.json === true, await inspectImage(flags.out))
}

/** What is wrong with a signature is shown with the rest, and is the exit code. */
const inspect = async (file: string, { json }: Flags): Promise<void> => {
  const inspected = await inspectImage(file)
  if (inspected.refusal !== undefined) process.exitCode = EXIT.failed
  printImage(json === true, inspected)
}

const keygen = async ({ out, json }: Flags & { readonly out: string }): Promise<void> => {
  const { makeSignerKey } = await import('./signer-key.js')
  const { signerOfKey } = await import('../platform/image-signature.js')
  const signer = toHex(signerOfKey(await makeSignerKey(out)))
  printResult(json === true, { file: out, signer }, [signer])
}

const sign = async (
  file: string,
  { key, productId, json }: Flags & { readonly key: string; readonly productId: number },
): Promise<void> => {
  const { readUnsignedImage, writeSignature } = await import('../platform/image.js')
  const { signImage, signatureFile } = await import('../platform/image-signature.js')
  const { readSignerKey } = await import('./signer-key.js')
  const image = await readUnsignedImage(file)
  const signed = signImage(image, { key: await readSignerKey(key), productId })
  await writeSignature(file, signed)
  const { name, svn } = image.manifest
  const signer = toHex(signed.signature.signer)
  const result = { file: signatureFile(file), name, svn, measurement: toHex(image.measurement), signer, productId }
  printResult(
    json === true,
    result,
    table(
      Object.entries(result).map(([field, value]) => [field === 'productId' ? 'product id' : field, String(value)]),
    ),
  )
}
