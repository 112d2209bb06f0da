import { spawn, type ChildProcess, type ChildProcessByStdio } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { chown, mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Readable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { readImage, type Image } from '../../platform/image.js'
import { SimulatedPlatform } from '../../platform/simulated.js'
import { buildStubImage } from '../enclave/target.js'
import { Skipped, type Level } from './attack.js'
import { masked } from './mask.js'
import { launchVictim, type Victim } from './victim.js'

export const IMAGE_FILE = 'keeper.image'

/** The enclave of most attacks, built once for all of them. */
export const buildKeeper = (): Promise<Image> => buildStubImage('../attack/keeper.enclave')

export interface HostOptions {
  /** Before the script’s name. */
  readonly flags?: readonly string[]
  readonly env?: Readonly<Record<string, string>>
  /** What it calls, in turn; `TELL` among them tells the key, a flag of V8’s is set. Only the telling unless told. */
  readonly calls?: readonly string[]
  /** Stay, with the victim alive, until it is killed. */
  readonly stays?: boolean
  /** The user to be. */
  readonly uid?: number
  /** Told to the shell first, as `ulimit -c unlimited`. */
  readonly prelude?: string
}

/** A host process, and what it leaves behind. */
export interface HostRun {
  readonly process: ChildProcess
  /** Its working directory: what Node writes by itself lands here. */
  readonly directory: string
  readonly output: () => string
  readonly exited: Promise<void>
  /** Resolves when all calls are made. */
  ready(): Promise<void>
  /** What a call answered. */
  answer(name: string): Promise<unknown>
  /** Has it tell the key, where it has not, and reads it. */
  canary(): Promise<Uint8Array>
}

/** Where one attack is tried once: a directory, a platform, and the level. */
export class Stage {
  #hostCount = 0
  private constructor(
    readonly level: Level,
    readonly directory: string,
    readonly platform: SimulatedPlatform,
    readonly image: Image,
  ) {}

  /** @param directory - its own; @param images - where `IMAGE_FILE` is. */
  static async open(level: Level, directory: string, images: string): Promise<Stage> {
    const platform = await SimulatedPlatform.open(join(directory, 'platform'))
    return new Stage(level, directory, platform, await readImage(join(images, IMAGE_FILE)))
  }

  launch(): Promise<Victim> {
    return launchVictim(this.level, this.platform, this.image)
  }

  /** Starts a process that launches the victim (host.ts): for what is decided before a process runs, or done to it. */
  async host(options: HostOptions): Promise<HostRun> {
    const directory = join(this.directory, `host-${++this.#hostCount}`)
    await mkdir(directory)
    await writeFile(join(directory, IMAGE_FILE), this.image.source)
    if (options.uid !== undefined) await chown(directory, options.uid, options.uid)
    const manner = options.stays === true ? 'stays' : 'ends'
    const argv = [...(options.flags ?? []), HOST_SCRIPT, this.level, directory, manner, ...(options.calls ?? [TELL])]
    const shell = ['-c', `${options.prelude ?? ''}; exec "$0" "$@"`, process.execPath]
    const child = spawn(
      options.prelude === undefined ? process.execPath : '/bin/sh',
      options.prelude === undefined ? argv : [...shell, ...argv],
      {
        cwd: directory,
        env: { PATH: process.env['PATH'] ?? '', ...options.env },
        stdio: ['ignore', 'pipe', 'pipe'],
        ...(options.uid === undefined ? {} : { uid: options.uid, gid: options.uid }),
      },
    )
    return new SpawnedHost(child, directory)
  }
}

const HOST_SCRIPT = fileURLToPath(new URL('./host.js', import.meta.url))

class SpawnedHost implements HostRun {
  readonly exited: Promise<void>
  readonly #chunks: Buffer[] = []

  constructor(
    readonly process: ChildProcessByStdio<null, Readable, Readable>,
    readonly directory: string,
  ) {
    for (const stream of [process.stdout, process.stderr])
      stream.on('data', (chunk: Buffer) => this.#chunks.push(chunk))
    this.exited = once(process, 'close').then(() => {})
  }

  output(): string {
    return Buffer.concat(this.#chunks).toString('latin1')
  }

  async ready(): Promise<void> {
    await this.#find(READY_FILE)
  }

  async answer(name: string): Promise<unknown> {
    await this.#find(`${name}.json`)
    return JSON.parse(await readFile(join(this.directory, `${name}.json`), 'utf8')) as unknown
  }

  async canary(): Promise<Uint8Array> {
    await writeFile(join(this.directory, TELL_FILE), '')
    await this.#find(CANARY_FILE)
    return masked(Buffer.from(await readFile(join(this.directory, CANARY_FILE), 'latin1'), 'base64'))
  }

  async #find(name: string): Promise<void> {
    while (!existsSync(join(this.directory, name))) {
      const { exitCode, signalCode } = this.process
      if (exitCode !== null || signalCode !== null) {
        await this.exited
        if (existsSync(join(this.directory, name))) return
        throw new Error(`The host ended first: ${this.output()}`)
      }
      await sleep(20)
    }
  }
}

/** Among a host’s calls: tell the key now. */
export const TELL = 'tell'
/** Among a host’s calls: wait until the victim has ended. */
export const GONE = 'gone'
export const CANARY_FILE = 'canary'
export const READY_FILE = 'ready'
export const TELL_FILE = 'tell-now'

export const isRoot = (): boolean => process.getuid?.() === 0

/** @throws {Skipped} elsewhere. */
export const needsLinux = (): void => {
  if (process.platform !== 'linux') throw new Skipped('needs Linux')
}
/** @throws {Skipped} for any other user. */
export const needsRoot = (): void => {
  needsLinux()
  if (!isRoot()) throw new Skipped('needs root')
}
