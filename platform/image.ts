import type { Bytes } from '../protocol/bytes.js'

/** What an image says about itself, in the first line of the measured string. */
export interface ImageManifest {
  readonly format: 'keyrise-image/1'
  readonly name: string
  readonly svn: number
  readonly ecalls: readonly string[]
  readonly ocalls: readonly string[]
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

/** @throws {KeyriseError} ERR_IMAGE_BUILD, ERR_IMAGE_TOP_LEVEL_AWAIT, ERR_IMAGE_INVALID. */
export declare const buildImage: <Definition = unknown>(entry: string | URL) => Promise<Image<Definition>>
/** @throws {KeyriseError} ERR_IMAGE_INVALID. */
export declare const readImage: <Definition = unknown>(path: string | URL) => Promise<Image<Definition>>
export declare const writeImage: (path: string | URL, image: Image) => Promise<void>
