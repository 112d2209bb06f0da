import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { appendFileSync, readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { createInterface } from 'node:readline'
import type { Writable } from 'node:stream'

const packageFile = createRequire(import.meta.url).resolve('keyrise/package.json')
const { bin } = JSON.parse(readFileSync(packageFile, 'utf8')) as { bin: { keyrise: string } }
const KEYRISE = join(dirname(packageFile), bin.keyrise)

export interface KmsPlace {
  /** The KMS's own directory: its ledger. */
  readonly directory: string
  /** The keyring, in a third place. */
  readonly custody: string
  readonly policy: string
  /** Where everything that the process prints goes. */
  readonly log: string
}

/** `keyrise kms serve` as a process of its own, as an operator would start it. */
export class KmsProcess {
  readonly #place: KmsPlace
  readonly #passphrase: Uint8Array
  #child: ChildProcess | undefined
  #port = 0

  /** @param passphrase - one line of bytes, borrowed as long as the KMS may have to be started again. */
  constructor(place: KmsPlace, passphrase: Uint8Array) {
    this.#place = place
    this.#passphrase = passphrase
  }

  get url(): string {
    return `http://127.0.0.1:${String(this.#port)}`
  }

  /** Makes the keys and puts the keyring into custody. @param workFactor - of the passphrase: 2 to that power. */
  async init(workFactor: number): Promise<void> {
    const { directory, custody } = this.#place
    const child = this.#spawn([
      'kms',
      'init',
      '--directory',
      directory,
      '--custody',
      custody,
      '--work-factor',
      String(workFactor),
    ])
    const [code] = (await once(child, 'exit')) as [number | null]
    if (code !== 0) throw new Error(`keyrise kms init failed, see ${this.#place.log}`)
  }

  /** Opens the keyring in custody and serves: on a free port at first, on the same one again after a crash. */
  async start(): Promise<void> {
    const { directory, custody, policy } = this.#place
    const port = String(this.#port)
    const child = this.#spawn([
      'kms',
      'serve',
      '--insecure-loopback',
      '--directory',
      directory,
      '--custody',
      custody,
      '--policy',
      policy,
      '--port',
      port,
      '--json',
    ])
    this.#child = child
    const url = await new Promise<string>((resolve, reject) => {
      createInterface({ input: child.stdout as NodeJS.ReadableStream }).on('line', (line) => {
        const said = JSON.parse(line) as { event?: string; url?: string }
        if (said.event === 'listening' && said.url !== undefined) resolve(said.url)
      })
      child.on('exit', () => {
        reject(new Error(`keyrise kms serve ended, see ${this.#place.log}`))
      })
    })
    this.#port = Number(new URL(url).port)
  }

  /** SIGKILL: nothing is flushed, nobody is told. */
  async kill(): Promise<void> {
    await this.#end('SIGKILL')
  }

  async stop(): Promise<void> {
    await this.#end('SIGTERM')
  }

  async #end(signal: NodeJS.Signals): Promise<void> {
    const child = this.#child
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return
    const exited = once(child, 'exit')
    child.kill(signal)
    await exited
  }

  #spawn(command: readonly string[]): ChildProcess {
    const child = spawn(process.execPath, [KEYRISE, ...command, '--passphrase-fd', '3'], {
      stdio: ['ignore', 'pipe', 'pipe', 'pipe'],
      env: {},
    })
    for (const stream of [child.stdout, child.stderr]) {
      stream?.on('data', (chunk: Buffer) => {
        appendFileSync(this.#place.log, chunk)
      })
    }
    const pipe = child.stdio[3] as Writable
    // A child that fails at once closes its end; its exit says more than the broken pipe.
    pipe.on('error', () => undefined)
    pipe.end(this.#passphrase)
    return child
  }
}
