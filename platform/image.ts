import { createHash } from 'node:crypto'
import { readFile, writeFile } from 'node:fs/promises'
import { resolve } from 'node:path'
import { MessageChannel, receiveMessageOnPort } from 'node:worker_threads'
import { copyBytes, type Bytes } from '../protocol/bytes.js'
import { isCallName } from '../protocol/calls.js'
import { FieldReader } from '../protocol/check.js'
import { KeyriseError } from '../protocol/errors.js'
import { IMAGE_SIZE_BYTES_MAX } from '../protocol/limits.js'
import { bundle, directoryOf, pathOf, runtimeFile } from './bundle.js'
import { startWorker } from './worker.js'

/** What an image says about itself, in the first line of the measured string. */
export interface ImageManifest {
  readonly format: 'keyrise-image/1'
  readonly name: string
  readonly svn: number
  readonly ecalls: readonly string[]
  readonly ocalls: readonly string[]
  readonly refusals: readonly string[]
}

declare const definitionType: unique symbol

/** An enclave image: one string, and the SHA-256 of exactly that string. `Definition` is for the compiler only. */
export interface Image<Definition = unknown> {
  readonly manifest: ImageManifest
  /** The string that runs. */
  readonly source: string
  readonly measurement: Bytes
  readonly [definitionType]?: Definition
}

const MANIFEST_PREFIX = '//keyrise '
const MANIFEST_LENGTH_MAX = 64 * 1024
const DECLARED_COUNT_MAX = 256
const DESCRIBE_TIMEOUT_MS = 30_000

/**
 * Bundles an enclave module, its libraries and the runtime into one image. The same source and lockfile give the same
 * measurement.
 * @param entry - the module whose default export is `defineEnclave(…)`, JavaScript or TypeScript.
 * @throws {KeyriseError} ERR_IMAGE_BUILD, ERR_IMAGE_TOP_LEVEL_AWAIT, ERR_IMAGE_INVALID.
 */
export const buildImage = async <Definition = unknown>(entry: string | URL): Promise<Image<Definition>> => {
  const path = resolve(pathOf(entry))
  const { source } = await bundle(imageModule(path), directoryOf(path))
  return composeImage(await describeModule(path), source)
}

/** The order is the design: `boot` hardens the realm before a line of the author's or of any library's runs. */
export const imageModule = (path: string): string =>
  [
    `import ${JSON.stringify(runtimeFile('boot'))}`,
    `import definition from ${JSON.stringify(path)}`,
    `import { openFlow } from ${JSON.stringify(runtimeFile('flow'))}`,
    `import { startEnclave } from ${JSON.stringify(runtimeFile('runtime'))}`,
    'void startEnclave(definition, openFlow)',
  ].join('\n')

/** Learns what a module declares by running it as it will run, isolated and hardened, without a flow. */
export const describeModule = async (path: string): Promise<ImageManifest> => {
  const contents = [
    `import ${JSON.stringify(runtimeFile('boot'))}`,
    `import definition from ${JSON.stringify(path)}`,
    `import { describeEnclave } from ${JSON.stringify(runtimeFile('describe'))}`,
    'describeEnclave(definition)',
  ].join('\n')
  const { source } = await bundle(contents, directoryOf(path))
  const { port1, port2 } = new MessageChannel()
  const worker = startWorker(source, { manifest: port2 }, [port2])
  const timer = setTimeout(() => void worker.kill(), DESCRIBE_TIMEOUT_MS)
  await worker.exited
  clearTimeout(timer)
  const claimed = receiveMessageOnPort(port1)?.message as unknown
  port1.close()
  if (typeof claimed !== 'object' || claimed === null || !('ecalls' in claimed)) {
    throw new KeyriseError('ERR_IMAGE_BUILD', {
      detail: 'the module failed when it was loaded, or its default export is not defineEnclave(…)',
    })
  }
  return readManifest({ format: 'keyrise-image/1', ...claimed })
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
  return { manifest, source, measurement: copyBytes(createHash('sha256').update(source, 'utf8').digest()) }
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
    ['format', 'name', 'svn', 'ecalls', 'ocalls', 'refusals'],
    'ERR_IMAGE_INVALID',
  )
  const callName = (name: unknown): string => (isCallName(name) ? name : invalid('a name'))
  if (fields.text('format', 32) !== 'keyrise-image/1') return fields.refuse('format')
  return {
    format: 'keyrise-image/1',
    name: callName(fields.claimed('name')),
    svn: fields.count('svn'),
    ecalls: fields.list('ecalls', DECLARED_COUNT_MAX, callName),
    ocalls: fields.list('ocalls', DECLARED_COUNT_MAX, callName),
    refusals: fields.list('refusals', DECLARED_COUNT_MAX, callName),
  }
}

/** Reads an image file and measures it. @throws {KeyriseError} ERR_IMAGE_INVALID. */
export const readImage = async <Definition = unknown>(path: string | URL): Promise<Image<Definition>> => {
  try {
    return parseImage(new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(await readFile(path)))
  } catch (error) {
    throw error instanceof KeyriseError
      ? error
      : new KeyriseError('ERR_IMAGE_INVALID', { detail: reasonOf(error), cause: error })
  }
}

/** @throws {KeyriseError} ERR_STORE_UNWRITABLE. */
export const writeImage = async (path: string | URL, image: Image): Promise<void> => {
  try {
    await writeFile(path, image.source)
  } catch (error) {
    throw new KeyriseError('ERR_STORE_UNWRITABLE', { detail: reasonOf(error), cause: error })
  }
}

/** `ENOENT: no such file or directory, open '…'`: the operating system's words name the path. */
const reasonOf = (error: unknown): string => (error instanceof Error ? error.message : 'unknown')
