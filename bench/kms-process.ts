import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { readFile, writeFile } from 'node:fs/promises'
import { createInterface } from 'node:readline'
import type { Readable, Writable } from 'node:stream'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'

/** This file is compiled to dist/bench/. */
const KEYRISE = fileURLToPath(new URL('../cli/keyrise.js', import.meta.url))
const PASSPHRASE = 'correct horse battery staple'

const start = (args: readonly string[]): ChildProcess => {
  const child = spawn(process.execPath, [KEYRISE, 'kms', ...args, '--passphrase-fd', '3'], {
    stdio: ['ignore', 'pipe', 'ignore', 'pipe'],
  })
  const pipe = child.stdio[3] as Writable
  pipe.on('error', () => undefined)
  pipe.end(PASSPHRASE)
  return child
}

export const initKms = async (directory: string): Promise<void> => {
  const [code] = (await once(start(['init', '--directory', directory, '--work-factor', '10']), 'exit')) as [number]
  if (code !== 0) throw new Error('keyrise kms init failed')
}

const listening = async (output: Readable): Promise<string | undefined> => {
  for await (const line of createInterface({ input: output })) {
    const { event, url } = JSON.parse(line) as { event?: string; url?: string }
    if (event === 'listening') return url
  }
  return undefined
}

/** `keyrise kms serve` as an operator starts it, and what it takes of the machine’s memory. */
export class KmsProcess implements AsyncDisposable {
  readonly url: string
  readonly #child: ChildProcess
  readonly #end = (): boolean => this.#child.kill('SIGKILL')

  private constructor(child: ChildProcess, url: string) {
    this.#child = child
    this.url = url
    // Whoever started it may end by a fault.
    process.once('exit', this.#end)
  }

  static async serve(directory: string, policy: string): Promise<KmsProcess> {
    const child = start([
      'serve',
      '--directory',
      directory,
      '--insecure-loopback',
      '--policy',
      policy,
      '--port',
      '0',
      '--json',
    ])
    const url = await listening(child.stdout as Readable)
    if (url === undefined) throw new Error('keyrise kms serve ended')
    // What it says from now on is not read; were it left in the pipe, the KMS would wait for a reader.
    child.stdout?.resume()
    return new KmsProcess(child, url)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    process.off('exit', this.#end)
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return
    const exited = once(this.#child, 'exit')
    this.#child.kill('SIGTERM')
    await exited
  }

  /** MiB that are resident now, and, `HWM`, the most that were since the mark was set back. */
  async memory(field: 'VmRSS' | 'VmHWM'): Promise<number> {
    const status = await readFile(this.#proc('status'), 'utf8')
    const kibibytes = new RegExp(`^${field}:\\s+(\\d+) kB$`, 'm').exec(status)?.[1]
    if (kibibytes === undefined) throw new Error(`no ${field} in /proc/…/status`)
    return Number(kibibytes) / 1024
  }

  /** Processor time that it has taken, in seconds, of all its threads. */
  async cpuSeconds(): Promise<number> {
    const stat = await readFile(this.#proc('stat'), 'utf8')
    // proc_pid_stat(5): the name, in brackets, may hold spaces; utime and stime are fields 14 and 15, in hundredths.
    const [user = 0, system = 0] = stat
      .slice(stat.lastIndexOf(')') + 2)
      .split(' ')
      .slice(11, 13)
      .map(Number)
    return (user + system) / 100
  }

  /**
   * The most that is resident while `work` runs, MiB: by the kernel’s own mark where it can be set back, and in any case by a
   * look every 20 ms.
   */
  async peakDuring(work: () => Promise<void>): Promise<number> {
    const isMarked = await writeFile(this.#proc('clear_refs'), '5').then(
      () => true,
      () => false,
    )
    let peak = await this.memory('VmRSS')
    const over = new AbortController()
    const watching = (async () => {
      while (!over.signal.aborted) {
        peak = Math.max(peak, await this.memory('VmRSS'))
        await delay(SAMPLE_MS, undefined, { signal: over.signal }).catch(() => undefined)
      }
    })()
    try {
      await work()
    } finally {
      over.abort()
      await watching
    }
    return isMarked ? Math.max(peak, await this.memory('VmHWM')) : peak
  }

  #proc(file: string): string {
    return `/proc/${String(this.#child.pid)}/${file}`
  }
}

const SAMPLE_MS = 20

export const hasProc = (): boolean => existsSync('/proc/self/status')
