import { spawn, type ChildProcess } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { ExecutionContext } from 'ava'

/** Files and processes for the tests of `keyrise envelope …`. */

const COMMAND = fileURLToPath(new URL('../../bin/keyrise.js', import.meta.url))

export interface Outcome {
  readonly code: number | null
  readonly out: Buffer
  readonly err: string
}

export interface Surroundings {
  /** Standard input; none where it is not given. */
  readonly input?: string | Uint8Array
  /** On descriptors 3 and 4. */
  readonly passphrases?: readonly string[]
  readonly directory?: string
}

const outcomeOf = (child: ChildProcess): Promise<Outcome> => {
  const out: Buffer[] = []
  let err = ''
  child.stdout?.on('data', (bytes: Buffer) => out.push(bytes))
  child.stderr?.setEncoding('utf8').on('data', (text: string) => (err += text))
  return new Promise((resolve) => child.once('close', (code) => resolve({ code, out: Buffer.concat(out), err })))
}

const feed = (stream: unknown, bytes: string | Uint8Array): void => {
  const writable = stream as NodeJS.WritableStream
  writable.on('error', () => undefined)
  writable.end(bytes)
}

/** Starts `keyrise envelope …`; its end is the caller’s to wait for. */
export const start = (flags: readonly string[], { passphrases = [], directory }: Surroundings = {}): ChildProcess => {
  const child = spawn(process.execPath, [COMMAND, 'envelope', ...flags], {
    stdio: ['pipe', 'pipe', 'pipe', 'pipe', 'pipe'],
    cwd: directory,
  })
  // A child that ends early takes no more.
  child.stdin.on('error', () => undefined)
  for (const [index, descriptor] of [3, 4].entries()) feed(child.stdio[descriptor], passphrases[index] ?? '')
  return child
}

/** Runs `keyrise envelope …` to its end. */
export const envelope = (flags: readonly string[], surroundings: Surroundings = {}): Promise<Outcome> => {
  const child = start(flags, surroundings)
  feed(child.stdin, surroundings.input ?? '')
  return outcomeOf(child)
}

/** Runs Debian’s `age` to its end. */
export const age = (flags: readonly string[], input: string | Uint8Array = ''): Promise<Outcome> => {
  const child = spawn('age', flags, { stdio: ['pipe', 'pipe', 'pipe'] })
  feed(child.stdin, input)
  return outcomeOf(child)
}

/** A directory that goes when the test does. */
export class Place {
  readonly directory: string

  private constructor(directory: string) {
    this.directory = directory
  }

  static async make(t: ExecutionContext): Promise<Place> {
    const directory = await mkdtemp(join(tmpdir(), 'keyrise-envelope-'))
    t.teardown(() => rm(directory, { recursive: true, force: true }))
    return new Place(directory)
  }

  path(name: string): string {
    return join(this.directory, name)
  }

  async write(name: string, bytes: string | Uint8Array): Promise<string> {
    await writeFile(this.path(name), bytes)
    return this.path(name)
  }

  /** A file of random bytes. */
  random(name: string, sizeBytes: number): Promise<string> {
    return this.write(name, randomBytes(sizeBytes))
  }

  read(name: string): Promise<Buffer> {
    return readFile(this.path(name))
  }

  /** Names of all there is, hidden files too. */
  async names(): Promise<string[]> {
    return (await readdir(this.directory)).sort()
  }

  /** A new private key in a file, and its public key. */
  async key(name = 'key.txt', ...flags: readonly string[]): Promise<{ file: string; recipient: string }> {
    const made = await envelope(['keygen', '--out', this.path(name), '--json', ...flags])
    const { recipient } = JSON.parse(made.out.toString()) as { recipient: string }
    return { file: this.path(name), recipient }
  }
}

/** The code that a command printed with `--json`. */
export const codeOf = ({ err }: Outcome): unknown => (JSON.parse(err) as { error: { code: unknown } }).error.code
