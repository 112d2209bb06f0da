import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmod, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Attack, Level } from './attack.js'
import { buildKeeper, IMAGE_FILE } from './stage.js'

/** What an attack came to at one level, beside what was expected. */
export interface Row {
  readonly attack: string
  readonly level: Level
  /** `leaks`, `stops` or `not applicable`. */
  readonly expected: string
  /** One of these; `skipped`; or `failed`: it did not end in time, or broke. */
  readonly observed: string
  readonly ok: boolean
  readonly detail: string
}

/** More than any attack takes; on a busy machine too. One that takes longer has failed. */
const TIMEOUT_MS = 60_000

/** A place where attacks are tried: the images, built once, and a directory for each attempt. */
export class Arena implements AsyncDisposable {
  readonly #directory: string
  #count = 0

  private constructor(directory: string) {
    this.#directory = directory
  }

  static async open(): Promise<Arena> {
    const directory = await mkdtemp(join(tmpdir(), 'keyrise-attack-'))
    // Other users are among the attackers: they may pass through.
    await chmod(directory, 0o711)
    await writeFile(join(directory, IMAGE_FILE), (await buildKeeper()).source)
    return new Arena(directory)
  }

  async attempt(attack: Attack, level: Level): Promise<Row> {
    const expected = attack.expected[level]
    const row = { attack: attack.name, level }
    if (typeof expected !== 'string') {
      const observed = 'not applicable'
      return { ...row, expected: observed, observed, ok: true, detail: expected.notApplicable }
    }
    const { outcome, detail } = await this.#inProcess(attack.name, level)
    return { ...row, expected, observed: outcome, ok: outcome === expected || outcome === 'skipped', detail }
  }

  async #inProcess(name: string, level: Level): Promise<{ outcome: string; detail: string }> {
    const directory = join(this.#directory, String(++this.#count))
    await mkdir(directory, { mode: 0o755 })
    const script = fileURLToPath(new URL('./one.js', import.meta.url))
    // A group of its own, so that nothing that it started outlives it.
    const child = spawn(process.execPath, [script, name, level, directory, this.#directory], {
      cwd: directory,
      env: { PATH: process.env['PATH'] ?? '' },
      stdio: ['ignore', 'pipe', 'pipe'],
      detached: true,
    })
    const output: Buffer[] = []
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk: Buffer) => output.push(chunk))
    const endGroup = (): void => {
      try {
        if (child.pid !== undefined) process.kill(-child.pid, 'SIGKILL')
      } catch {
        // All of it has ended.
      }
    }
    const late = new AbortController()
    const timer = setTimeout(() => {
      late.abort()
      endGroup()
    }, TIMEOUT_MS)
    process.once('exit', endGroup)
    await once(child, 'exit')
    endGroup()
    process.off('exit', endGroup)
    clearTimeout(timer)
    try {
      return JSON.parse(await readFile(join(directory, 'finding.json'), 'utf8')) as { outcome: string; detail: string }
    } catch {
      const said = Buffer.concat(output).toString().slice(-2000)
      return { outcome: 'failed', detail: late.signal.aborted ? `no end within ${TIMEOUT_MS / 1000} s` : said }
    } finally {
      await rm(directory, { recursive: true, force: true })
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await rm(this.#directory, { recursive: true, force: true })
  }
}

/** As many processes at a time as the smallest machine has processors. */
const LANE_COUNT = 2

/** Tries every attack at every level. @returns the rows in order. */
export const runAll = async (
  arena: Arena,
  attacks: readonly Attack[],
  levels: readonly Level[],
  progress: (row: Row, done: number, total: number) => void,
): Promise<Row[]> => {
  const pairs = attacks.flatMap((attack) => levels.map((level) => ({ attack, level })))
  const rows = new Map<number, Row>()
  const queue = pairs.entries()
  const lane = async (): Promise<void> => {
    for (const [index, { attack, level }] of queue) {
      const row = await arena.attempt(attack, level)
      rows.set(index, row)
      progress(row, rows.size, pairs.length)
    }
  }
  await Promise.all(Array.from({ length: LANE_COUNT }, lane))
  return pairs.flatMap((_, index) => rows.get(index) ?? [])
}
