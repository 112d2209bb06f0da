import { hash } from 'node:crypto'
import { readFile, realpath, rm, writeFile } from 'node:fs/promises'
import { resolve } from 'node:path'
import { MessageChannel, receiveMessageOnPort, type MessagePort } from 'node:worker_threads'
import { allocate, type Bytes } from '../protocol/bytes.js'
import { isCallName, printableText } from '../protocol/calls.js'
import { FieldReader } from '../protocol/check.js'
import {
  DECLARED_COUNT_MAX,
  readDeclaredEcall,
  readDeclaredOcall,
  type DeclaredEcall,
  type DeclaredOcall,
} from '../protocol/declared-calls.js'
import { KeyriseError } from '../protocol/errors.js'
import { IMAGE_SIZE_BYTES_MAX } from '../protocol/limits.js'
import { bundle, directoryOf, pathOf, runtimeFile } from './bundle.js'
import { readSignatureFile, signatureFile, type ImageSignature } from './image-signature.js'
import { startWorker } from './worker.js'

const FORMAT = 'keyrise-image/2'

/** What an image says about itself, in the first line of the measured string. */
export interface ImageManifest {
  readonly format: typeof FORMAT
  readonly name: string
  readonly svn: number
  /** Errors and output leave it in full. Evidence says so, and a KMS refuses it unless its policy has `allowDebug`. */
  readonly debug: boolean
  /** Sorted by name, as are the OCALLs; the reasons of refusals are sorted too. */
  readonly ecalls: readonly DeclaredEcall[]
  readonly ocalls: readonly DeclaredOcall[]
  readonly refusals: readonly string[]
}

declare const definitionType: unique symbol

/** An enclave image: one string, and the SHA-256 of exactly that string. `Definition` is for the compiler only. */
export interface Image<Definition = unknown> {
  readonly manifest: ImageManifest
  /** The string that runs. */
  readonly source: string
  readonly measurement: Bytes
  /** Beside the string, and so not measured; without one the image runs as unsigned. */
  readonly signature?: ImageSignature
  readonly [definitionType]?: Definition
}

const MANIFEST_PREFIX = '//keyrise '
/** 256 ECALLs that use many OCALLs each. */
const MANIFEST_LENGTH_MAX = 1024 * 1024
const DESCRIBE_TIMEOUT_MS = 30_000

export interface BuildOptions {
  /** Makes a debug image. It has another measurement than the same module without. */
  readonly debug?: boolean
}

/**
 * Bundles an enclave module, its libraries and the runtime into one image. The same source and lockfile give the same
 * measurement.
 * @param entry - the module whose default export is `defineEnclave(…)`, JavaScript or TypeScript.
 * @throws {KeyriseError} ERR_IMAGE_BUILD, ERR_IMAGE_TOP_LEVEL_AWAIT, ERR_IMAGE_INVALID.
 */
export const buildImage = async <Definition = unknown>(
  entry: string | URL,
  { debug = false }: BuildOptions = {},
): Promise<Image<Definition>> => {
  const path = await realPath(resolve(pathOf(entry)))
  const { source } = await bundle(imageModule(path, debug), directoryOf(path), { debug })
  return composeImage(await describeModule(path, debug), source)
}

/** Past symbolic links: what a module imports is found from where it lies. */
const realPath = (path: string): Promise<string> =>
  realpath(path).catch(() => {
    throw new KeyriseError('ERR_IMAGE_BUILD', { detail: `${path} cannot be read` })
  })

/** The order is the design: `boot` hardens the realm before a line of the author's or of any library's runs. */
export const imageModule = (path: string, debug = false): string =>
  [
    ...(debug ? [`import ${JSON.stringify(runtimeFile('debug'))}`] : []),
    `import ${JSON.stringify(runtimeFile('boot'))}`,
    `import definition from ${JSON.stringify(path)}`,
    `import { openFlow } from ${JSON.stringify(runtimeFile('flow'))}`,
    `import { startEnclave } from ${JSON.stringify(runtimeFile('runtime'))}`,
    'void startEnclave(definition, openFlow)',
  ].join('\n')

/** Learns what a module declares by running it as it will run, isolated and hardened, without a flow. @throws {KeyriseError} ERR_IMAGE_BUILD. */
export const describeModule = async (path: string, debug = false): Promise<ImageManifest> => {
  const contents = [
    `import ${JSON.stringify(runtimeFile('debug'))}`,
    `import ${JSON.stringify(runtimeFile('boot'))}`,
    `import { describeEnclave } from ${JSON.stringify(runtimeFile('describe'))}`,
    `import definition from ${JSON.stringify(path)}`,
    'describeEnclave(definition)',
  ].join('\n')
  const { source } = await bundle(contents, directoryOf(path), { debug: true })
  const { port1, port2 } = new MessageChannel()
  // An empty line where an image has its manifest, so that positions in it are found.
  const worker = startWorker(`\n${source}`, { manifest: port2 }, [port2])
  const timer = setTimeout(() => void worker.kill(), DESCRIBE_TIMEOUT_MS)
  await worker.exited
  clearTimeout(timer)
  const messages = receiveAll(port1)
  port1.close()
  const described = messages.find((message) => 'ecalls' in message)
  if (described === undefined) throw new KeyriseError('ERR_IMAGE_BUILD', { detail: printedIn(messages) })
  return readManifest({ format: FORMAT, debug, ...described })
}

const receiveAll = (port: MessagePort): object[] => {
  const messages: object[] = []
  for (let next = receiveMessageOnPort(port); next !== undefined; next = receiveMessageOnPort(port))
    if (typeof next.message === 'object' && next.message !== null) messages.push(next.message as object)
  return messages
}

/** What a module printed that could not be loaded; why it could not stands last. */
const printedIn = (messages: readonly object[]): string => {
  const lines = messages.flatMap((message): readonly unknown[] =>
    'printed' in message && Array.isArray(message.printed) ? message.printed : [],
  )
  return printableText(lines.map(String).join('\n')) || 'the module ended, or had not been loaded after 30 seconds'
}

/** Joins manifest and script into the measured string. */
export const composeImage = <Definition = unknown>(manifest: ImageManifest, script: string): Image<Definition> =>
  parseImage(`${manifestLine(manifest)}\n${script}`)

const manifestLine = (manifest: ImageManifest): string => MANIFEST_PREFIX + JSON.stringify(manifest)

/**
 * Measures a string and reads its first line. A lone surrogate is refused, because UTF-8 has none: two strings would share
 * a measurement.
 * @throws {KeyriseError} ERR_IMAGE_INVALID.
 */
export const parseImage = <Definition = unknown>(source: string): Image<Definition> => {
  if (typeof source !== 'string' || source.length > IMAGE_SIZE_BYTES_MAX || !source.isWellFormed())
    return invalid('not text')
  const lineLength = source.indexOf('\n')
  if (lineLength > MANIFEST_LENGTH_MAX || !source.startsWith(MANIFEST_PREFIX)) return invalid('no manifest')
  const line = source.slice(0, lineLength)
  const manifest = readManifest(parseJson(line.slice(MANIFEST_PREFIX.length)))
  if (manifestLine(manifest) !== line) return invalid('manifest')
  return Object.freeze({ manifest, source, measurement: measure(source) })
}

/** Taken when this module is loaded: what the host makes of them later does not matter, `syncBuiltinESMExports` included. */
const digestOf = hash
const fillFrom = Uint8Array.prototype.set
const { apply } = Reflect

const measure = (source: string): Bytes => {
  const measurement = allocate(32)
  apply(fillFrom, measurement, [digestOf('sha256', source, 'buffer')])
  return measurement
}

const invalid = (detail: string): never => {
  throw new KeyriseError('ERR_IMAGE_INVALID', { detail })
}

const parseJson = (text: string): unknown => {
  try {
    return JSON.parse(text)
  } catch {
    return invalid('manifest')
  }
}

const readManifest = (claimed: unknown): ImageManifest => {
  const fields = new FieldReader(
    claimed,
    ['format', 'name', 'svn', 'debug', 'ecalls', 'ocalls', 'refusals'],
    'ERR_IMAGE_INVALID',
  )
  const format = fields.text('format', 32)
  if (format !== FORMAT)
    return fields.refuse(format.startsWith('keyrise-image/') ? `${format}; this version reads ${FORMAT}` : 'format')
  const callName = (name: unknown): string => (isCallName(name) ? name : invalid('a name'))
  return deepFreeze({
    format,
    name: callName(fields.claimed('name')),
    svn: fields.count('svn'),
    debug: fields.flag('debug'),
    ecalls: fields.list('ecalls', DECLARED_COUNT_MAX, (ecall) => readDeclaredEcall(ecall, 'ERR_IMAGE_INVALID')),
    ocalls: fields.list('ocalls', DECLARED_COUNT_MAX, (ocall) => readDeclaredOcall(ocall, 'ERR_IMAGE_INVALID')),
    refusals: fields.list('refusals', DECLARED_COUNT_MAX, callName),
  })
}

/** What was read of a measured line stays what it was. */
const deepFreeze = <T extends object>(value: T): T => {
  for (const part of Object.values(value) as unknown[]) if (typeof part === 'object' && part !== null) deepFreeze(part)
  return Object.freeze(value)
}

/**
 * Reads an image file and measures it, and verifies the signature in the file beside it, `FILE.sig`, where there is one.
 * @throws {KeyriseError} ERR_IMAGE_INVALID, ERR_IMAGE_SIGNATURE.
 */
export const readImage = async <Definition = unknown>(path: string | URL): Promise<Image<Definition>> => {
  const file = pathOf(path)
  const image = await readUnsignedImage<Definition>(file)
  const signature = await readSignatureFile(signatureFile(file), image.measurement)
  return signature === undefined ? image : Object.freeze({ ...image, signature })
}

/** Without the file beside it. @throws {KeyriseError} ERR_IMAGE_INVALID. */
export const readUnsignedImage = async <Definition = unknown>(file: string): Promise<Image<Definition>> => {
  try {
    return parseImage(new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(await readFile(file)))
  } catch (error) {
    throw error instanceof KeyriseError
      ? error
      : new KeyriseError('ERR_IMAGE_INVALID', { detail: reasonOf(error), cause: error })
  }
}

/**
 * Writes an image, and its signature beside it as `FILE.sig`. A signature that lies there stays where it is this image’s: the
 * same source was built again. Another’s goes.
 * @throws {KeyriseError} ERR_STORE_UNWRITABLE.
 */
export const writeImage = async (path: string | URL, image: Image): Promise<void> => {
  const file = pathOf(path)
  const beside = signatureFile(file)
  try {
    // First, so that at no moment an image stands beside a signature that is not its own.
    if (!(await isSignedBy(beside, image))) await rm(beside, { force: true })
    await writeFile(file, image.source)
  } catch (error) {
    throw new KeyriseError('ERR_STORE_UNWRITABLE', { detail: reasonOf(error), cause: error })
  }
  if (image.signature !== undefined) await writeSignature(file, { signature: image.signature })
}

/** Writes a signature beside the image file that it is of. @throws {KeyriseError} ERR_STORE_UNWRITABLE. */
export const writeSignature = async (
  file: string,
  { signature }: { readonly signature: ImageSignature },
): Promise<void> => {
  try {
    await writeFile(signatureFile(file), signature.bytes)
  } catch (error) {
    throw new KeyriseError('ERR_STORE_UNWRITABLE', { detail: reasonOf(error), cause: error })
  }
}

const isSignedBy = async (file: string, { measurement }: Image): Promise<boolean> => {
  try {
    return (await readSignatureFile(file, measurement)) !== undefined
  } catch {
    return false
  }
}

/** `ENOENT: no such file or directory, open '…'`: the operating system's words name the path. */
const reasonOf = (error: unknown): string => (error instanceof Error ? error.message : 'unknown')
