import { spawn, spawnSync } from 'node:child_process'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { Bench } from 'tinybench'

/**
 * How many times a second `work` is done, called again and again for `sliceMs`, and once at least. What it returns is
 * dropped. Warm up and look at results outside.
 */
export const perSecond = async (work: () => unknown, sliceMs: number): Promise<number> => {
  settle()
  const bench = new Bench({ time: sliceMs, iterations: 1, warmup: false, throws: true })
  // Awaited whatever it is, for all sides alike. Unsaid, tinybench would try once more than it counts: seconds, for large sizes.
  bench.add('work', work, { async: true })
  const [task] = await bench.run()
  if (task?.result.state !== 'completed') throw new Error('Not measured')
  return 1000 / task.result.latency.mean
}

setFlagsFromString('--expose-gc')
const collectGarbage = runInNewContext('gc') as () => void

/** Nobody pays for garbage that another left. */
const settle = (): void => {
  collectGarbage()
}

export interface CommandRun {
  readonly command: string
  readonly args: readonly string[]
  /** For standard input and output; ignored unless told. */
  readonly stdin?: number
  readonly stdout?: number
}

/** Where this is set, Node 20 reads all certificates before any code runs: 80 ms, which belong to the machine’s set-up. */
const ENVIRONMENT = { ...process.env, NODE_EXTRA_CA_CERTS: undefined }

/** Seconds from before a process is started until it has ended. @throws {Error} with what it printed, when it fails. */
export const commandSeconds = async ({ command, args, stdin, stdout }: CommandRun): Promise<number> => {
  const startMs = performance.now()
  const child = spawn(command, args, { stdio: [stdin ?? 'ignore', stdout ?? 'ignore', 'pipe'], env: ENVIRONMENT })
  let printed = ''
  child.stderr?.setEncoding('utf8').on('data', (text: string) => (printed += text))
  const code = await new Promise<number | null>((resolve, reject) => {
    child.once('error', reject).once('close', resolve)
  })
  if (code !== 0) throw new Error(`${command} ended with ${String(code)}: ${printed.trim()}`)
  return (performance.now() - startMs) / 1000
}

/** What this machine lacks, said; undefined where it has the command. */
export const lackOf = (command: string): string | undefined =>
  spawnSync(command, ['--version']).error === undefined ? undefined : `${command} is not installed`
