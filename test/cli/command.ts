import { spawn, type ChildProcess } from 'node:child_process'
import { fileURLToPath } from 'node:url'

/** The command as it is installed. */
export const COMMAND = fileURLToPath(new URL('../../cli/keyrise.js', import.meta.url))

export interface Outcome {
  readonly code: number | null
  readonly out: string
  readonly err: string
}

/** Starts `keyrise`, with `passphrase` on descriptor 3. */
export const start = (
  flags: readonly string[],
  passphrase?: string | Uint8Array,
  env: NodeJS.ProcessEnv = process.env,
): ChildProcess => {
  const child = spawn(process.execPath, [COMMAND, ...flags], { stdio: ['ignore', 'pipe', 'pipe', 'pipe'], env })
  const pipe = child.stdio[3]
  if (pipe && 'end' in pipe) {
    pipe.on('error', () => undefined)
    pipe.end(passphrase ?? '')
  }
  return child
}

const collect = (stream: NodeJS.ReadableStream | null, add: (text: string) => void): void => {
  stream?.setEncoding('utf8').on('data', add)
}

/** Runs `keyrise` to its end. */
export const run = (
  flags: readonly string[],
  passphrase?: string | Uint8Array,
  env?: NodeJS.ProcessEnv,
): Promise<Outcome> => {
  const child = start(flags, passphrase, env)
  let [out, err] = ['', '']
  collect(child.stdout, (text) => (out += text))
  collect(child.stderr, (text) => (err += text))
  return new Promise((resolve) => child.once('close', (code) => resolve({ code, out, err })))
}

/** The first line that a child prints on standard output, and whatever it prints on standard error until it ends. */
export const firstLine = (child: ChildProcess): Promise<string> =>
  new Promise((resolve, reject) => {
    let [out, err] = ['', '']
    collect(child.stdout, (text) => {
      out += text
      if (out.includes('\n')) resolve(out.slice(0, out.indexOf('\n')))
    })
    collect(child.stderr, (text) => (err += text))
    child.once('close', () => reject(new Error(err)))
  })

export const ended = (child: ChildProcess): Promise<number | null> =>
  child.exitCode !== null || child.signalCode !== null
    ? Promise.resolve(child.exitCode)
    : new Promise((resolve) => child.once('close', resolve))
