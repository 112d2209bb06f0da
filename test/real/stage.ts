import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import type { Readable, Writable } from 'node:stream'
import { fileURLToPath } from 'node:url'
import { buildImage, SimulatedPlatform, writeImage } from '../../host/index.js'
import { toHex } from '../../protocol/bytes.js'
import { Witness, type HostPlan, type Said } from './witness.js'

const KEYRISE = fileURLToPath(new URL('../../cli/keyrise.js', import.meta.url))
const HOST = fileURLToPath(new URL('./host.js', import.meta.url))
const COUNTDOWN = new URL('./countdown.js', import.meta.url)
const PASSPHRASE = 'correct horse battery staple'

/** How a process of the product is started. */
export interface Start {
  /** The number of the moment at which it ends itself by SIGKILL; none: it counts, and lives. */
  readonly killAt?: number
  /** A command that runs it, as `strace`. */
  readonly wrapper?: readonly string[]
}

export interface Ended {
  /** Killed by the countdown, and where: `12 before sync`. */
  readonly moment: string | undefined
  /** How many moments a whole run had. */
  readonly count: number | undefined
  readonly status: string
}

/** What the store and the KMS’s directory lie on. */
export interface Disk {
  readonly path: string
  readonly release: () => Promise<void>
}

const plainDisk = async (base: string): Promise<Disk> => {
  const path = join(base, 'disk')
  await mkdir(path)
  return { path, release: () => Promise.resolve() }
}

/** A wrapper and what it runs are one group: a signal is for both. */
const end = (child: ChildProcess, signal: NodeJS.Signals): void => {
  try {
    if (!child.kill(signal) || child.pid === undefined) return
    process.kill(-child.pid, signal)
  } catch {
    // Not the leader of a group.
  }
}

/** One flow with real files, a KMS in a process of its own, and hosts that come and go. */
export class Stage implements AsyncDisposable {
  readonly witness = new Witness()
  readonly base: string
  /** Where the flow's store and the KMS's directory lie. */
  readonly disk: string
  #identity = ''
  #port = 0
  #kms: ChildProcess | undefined
  readonly #releaseDisk: () => Promise<void>
  #runCount = 0

  private constructor(base: string, { path, release }: Disk) {
    this.base = base
    this.disk = path
    this.#releaseDisk = release
  }

  /** @param makeDisk - given a directory, makes in it what the store and the KMS’s directory lie on. */
  static async open(makeDisk: (base: string) => Promise<Disk> = plainDisk): Promise<Stage> {
    const base = await mkdtemp(join(tmpdir(), 'keyrise-real-'))
    const stage = new Stage(
      base,
      await makeDisk(base).catch(async (error: unknown) => {
        await rm(base, { recursive: true, force: true })
        throw error
      }),
    )
    const image = await buildImage(fileURLToPath(new URL('./book.enclave.js', import.meta.url)))
    await writeImage(stage.#path('book.image'), image)
    const platform = await SimulatedPlatform.open(stage.#path('machine'))
    const policy = {
      platforms: [toHex(platform.publicKey)],
      images: [{ name: 'book', measurement: toHex(image.measurement) }],
    }
    await writeFile(stage.#path('policy.json'), JSON.stringify(policy))
    const made = stage.#spawnKms(['init', '--directory', join(stage.disk, 'kms'), '--work-factor', '10'], {})
    const [code] = (await once(made.child, 'close')) as [number | null]
    if (code !== 0) throw new Error(`keyrise kms init: ${made.said()}`)
    return stage
  }

  /** Serves on the same port as before; resolves when it listens, or has ended. */
  async startKms(start: Start = {}): Promise<{ readonly ended: Promise<Ended> }> {
    const place = ['--directory', join(this.disk, 'kms'), '--policy', this.#path('policy.json')]
    const { child, log, said } = this.#spawnKms(
      ['serve', ...place, '--insecure-loopback', '--port', String(this.#port), '--json'],
      start,
    )
    this.#kms = child
    const ended = this.#ended(child, log, said)
    const listening = new Promise<void>((resolve) => {
      createInterface(child.stdout as Readable).on('line', (line) => {
        const { event, url, identity } = JSON.parse(line) as { event?: string; url?: string; identity?: string }
        if (event !== 'listening' || url === undefined) return
        this.#port = Number(new URL(url).port)
        this.#identity = identity ?? this.#identity
        resolve()
      })
    })
    await Promise.race([listening, ended])
    return { ended }
  }

  async endKms(signal: NodeJS.Signals): Promise<void> {
    const child = this.#kms
    this.#kms = undefined
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return
    const exited = once(child, 'close')
    end(child, signal)
    await exited
  }

  /** A host to its end. What it says is compared with what was acknowledged before. */
  async runHost(plan: Partial<HostPlan>, start: Start = {}, where = 'host'): Promise<Ended> {
    return await this.startHost(plan, start, where).ended
  }

  /** A host that must live to its end: what else happens is a violation. */
  async runSound(where: string): Promise<void> {
    const { status } = await this.runHost({}, {}, where)
    if (status !== 'exit 0 ') this.witness.violations.push(`${where}: ${status}${this.witness.failures.at(-1) ?? ''}`)
  }

  startHost(
    plan: Partial<HostPlan>,
    start: Start = {},
    where = 'host',
    onSaid: (said: Said) => void = () => undefined,
  ): { readonly ended: Promise<Ended>; stop: () => void } {
    const whole: HostPlan = {
      machine: this.#path('machine'),
      image: this.#path('book.image'),
      store: join(this.disk, 'sealed'),
      url: `http://127.0.0.1:${String(this.#port)}`,
      identity: this.#identity,
      firstRound: this.witness.nextRound,
      roundCount: 3,
      sizeBytes: 5000,
      enclaveKills: [],
      ...plan,
    }
    const { child, log, said: stderr } = this.#spawn([HOST, JSON.stringify(whole)], start, ['pipe', 'pipe', 'pipe'])
    createInterface(child.stdout as Readable).on('line', (line) => {
      // The last line of one that was killed may be cut.
      if (!line.endsWith('}')) return
      const said = JSON.parse(line) as Said
      this.witness.hear(said, where)
      onSaid(said)
    })
    child.stdin?.on('error', () => undefined)
    return { ended: this.#ended(child, log, stderr), stop: () => child.stdin?.end() }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.endKms('SIGKILL')
    await this.#releaseDisk()
    await rm(this.base, { recursive: true, force: true })
  }

  #path(name: string): string {
    return join(this.base, name)
  }

  #spawnKms(command: readonly string[], start: Start) {
    const spawned = this.#spawn([KEYRISE, 'kms', ...command, '--passphrase-fd', '3'], start, [
      'ignore',
      'pipe',
      'pipe',
      'pipe',
    ])
    const pipe = spawned.child.stdio[3] as Writable
    pipe.on('error', () => undefined)
    pipe.end(PASSPHRASE)
    return spawned
  }

  #spawn(script: readonly string[], { killAt, wrapper = [] }: Start, stdio: ('ignore' | 'pipe')[]) {
    const log = this.#path(`moments-${String(++this.#runCount)}`)
    const countdown = new URL(COUNTDOWN)
    countdown.searchParams.set('log', log)
    if (killAt !== undefined) countdown.searchParams.set('at', String(killAt))
    const [command, ...rest] = [...wrapper, process.execPath, `--import=${countdown.href}`, ...script]
    const child = spawn(command as string, rest, {
      stdio,
      env: { PATH: process.env['PATH'] ?? '', UV_THREADPOOL_SIZE: '1' },
      detached: wrapper.length > 0,
    })
    const output: Buffer[] = []
    child.stderr?.on('data', (chunk: Buffer) => output.push(chunk))
    return { child, log, said: () => Buffer.concat(output).toString().slice(-1000) }
  }

  async #ended(child: ChildProcess, log: string, said: () => string): Promise<Ended> {
    const [code, signal] = (await once(child, 'close')) as [number | null, NodeJS.Signals | null]
    const line = await readFile(log, 'utf8').catch(() => '')
    await rm(log, { force: true })
    const moments = /^(\d+) moments$/m.exec(line)?.[1]
    const killed = /^\d+ (?:before|after) .*$/m.exec(line)?.[0]
    return {
      moment: signal === 'SIGKILL' ? killed : undefined,
      count: moments === undefined ? undefined : Number(moments),
      status: signal ?? `exit ${String(code)} ${said()}`,
    }
  }
}
