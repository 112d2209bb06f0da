import { closeSync, openSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline/promises'
import { ReadStream } from 'node:tty'
import { allocate, copyBytes, type Bytes } from '../protocol/bytes.js'
import { KeyriseError } from '../protocol/errors.js'
import { systemCode } from '../storage/failures.js'
import { readSome } from './input.js'
import { ENDING_SIGNALS, Interrupted } from './terminal.js'

/** A passphrase is read as bytes and stays bytes: a string could never be erased. */
const PASSPHRASE_SIZE_BYTES_MAX = 1024
const KEY = { enter: [10, 13], erase: [8, 127], interrupt: 3, end: 4 } as const

/**
 * The first line of an open file descriptor, without its end. The caller zero-fills it.
 * @throws {KeyriseError} ERR_CONFIG_INVALID.
 */
const readPassphraseFrom = async (descriptor: number, flag: string): Promise<Bytes> => {
  const buffer = allocate(PASSPHRASE_SIZE_BYTES_MAX + 2)
  try {
    let size = 0
    while (size < buffer.length && !buffer.subarray(0, size).includes(KEY.enter[0])) {
      const count = await readSome(descriptor, buffer.subarray(size), null).catch((error: unknown) => {
        throw new KeyriseError('ERR_CONFIG_INVALID', { detail: `${flag}: ${systemCode(error) ?? 'unknown'}` })
      })
      if (count === 0) break
      size += count
    }
    return takeLine(buffer.subarray(0, size))
  } finally {
    buffer.fill(0)
  }
}

const CREDENTIAL_NAME = /^[A-Za-z0-9_][A-Za-z0-9_.-]{0,254}$/

/**
 * A systemd credential: a file that the service manager puts, for this service alone, where `CREDENTIALS_DIRECTORY` says
 * (systemd.exec(5), LoadCredentialEncrypted=).
 * @throws {KeyriseError} ERR_CONFIG_INVALID.
 */
const readCredential = async (name: string): Promise<Bytes> => {
  const flag = '--passphrase-credential'
  const directory = process.env['CREDENTIALS_DIRECTORY']
  if (directory === undefined || !CREDENTIAL_NAME.test(name))
    throw new KeyriseError('ERR_CONFIG_INVALID', {
      detail: `${flag}: ${directory === undefined ? 'CREDENTIALS_DIRECTORY is not set' : 'no name of a credential'}`,
    })
  let descriptor: number
  try {
    descriptor = openSync(join(directory, name), 'r')
  } catch (error) {
    throw new KeyriseError('ERR_CONFIG_INVALID', { detail: `${flag}: ${name} (${systemCode(error) ?? 'unknown'})` })
  }
  try {
    return await readPassphraseFrom(descriptor, flag)
  } finally {
    closeSync(descriptor)
  }
}

const takeLine = (bytes: Bytes, isEmptyAllowed = false): Bytes => {
  const end = bytes.indexOf(KEY.enter[0])
  const line = end === -1 ? bytes : bytes.subarray(0, end)
  const text = line.at(-1) === KEY.enter[1] ? line.subarray(0, -1) : line
  if (text.length === 0 && !isEmptyAllowed)
    throw new KeyriseError('ERR_CONFIG_INVALID', { detail: 'the passphrase is empty' })
  if (text.length > PASSPHRASE_SIZE_BYTES_MAX)
    throw new KeyriseError('ERR_CONFIG_INVALID', { detail: 'the passphrase is longer than 1024 bytes' })
  return copyBytes(text)
}

/** Asks on a terminal, without echo. The caller zero-fills the answer. @throws {Interrupted} on Ctrl-C. */
const askPassphrase = (question: string, terminal: ReadStream, isEmptyAllowed = false): Promise<Bytes> => {
  const buffer = allocate(PASSPHRASE_SIZE_BYTES_MAX + 1)
  let size = 0
  const wasRaw = terminal.isRaw
  // Before others that listen, which end the process: it must not leave the terminal without an echo.
  const onSignal = (signal: NodeJS.Signals): void => {
    restore()
    if (process.listenerCount(signal) === 0) process.kill(process.pid, signal)
  }
  const restore = (): void => {
    for (const signal of ENDING_SIGNALS) process.off(signal, onSignal)
    try {
      terminal.setRawMode(wasRaw)
    } catch {
      // The terminal is gone.
    }
  }
  for (const signal of ENDING_SIGNALS) process.prependListener(signal, onSignal)
  terminal.setRawMode(true)
  terminal.resume()
  // Only now: what is typed before the echo is off would be seen.
  process.stderr.write(question)
  const typing = new Promise<void>((resolve, reject) => {
    const press = (key: number): 'more' | 'done' | 'interrupted' => {
      if (key === KEY.interrupt) return 'interrupted'
      if (key === KEY.end || KEY.enter.some((enter) => enter === key)) return 'done'
      if (KEY.erase.some((erase) => erase === key)) size = startOfLast(buffer, size)
      else if (size < buffer.length) buffer[size++] = key
      return 'more'
    }
    const typed = (keys: Buffer): void => {
      let state: ReturnType<typeof press> = 'more'
      for (const key of keys) if (state === 'more') state = press(key)
      keys.fill(0)
      if (state === 'more') return
      terminal.off('data', typed)
      restore()
      terminal.pause()
      process.stderr.write('\n')
      if (state === 'done') resolve()
      else reject(new Interrupted())
    }
    terminal.on('data', typed)
  })
  return typing.then(() => takeLine(buffer.subarray(0, size), isEmptyAllowed)).finally(() => buffer.fill(0))
}

/** Where the last UTF-8 character before `size` starts: continuation bytes are 10xxxxxx. */
const startOfLast = (buffer: Bytes, size: number): number => {
  let start = Math.max(0, size - 1)
  while (start > 0 && ((buffer[start] ?? 0) & 0xc0) === 0x80) start--
  return start
}

/** Standard input, or the terminal of a process whose standard input is something else. */
const openTerminal = (): ReadStream => {
  if (process.stdin.isTTY) return process.stdin
  try {
    return new ReadStream(openSync('/dev/tty', 'r+'))
  } catch {
    throw new KeyriseError('ERR_CONFIG_INVALID', {
      detail: 'no terminal to ask for the passphrase: give --passphrase-fd',
    })
  }
}

export const hasTerminal = (): boolean => {
  if (process.stdin.isTTY) return true
  try {
    closeSync(openSync('/dev/tty', 'r+'))
    return true
  } catch {
    return false
  }
}

const withTerminal = async <T>(use: (terminal: ReadStream) => Promise<T>): Promise<T> => {
  const terminal = openTerminal()
  try {
    return await use(terminal)
  } finally {
    // A terminal that we opened would keep the process waiting for what is typed next.
    if (terminal !== process.stdin) terminal.destroy()
  }
}

/** Asks on the terminal, without echo. The caller zero-fills the answer. @throws {Interrupted}, {KeyriseError} ERR_CONFIG_INVALID. */
export const askSecret = (
  question: string,
  { isEmptyAllowed = false }: { readonly isEmptyAllowed?: boolean } = {},
): Promise<Bytes> => withTerminal((terminal) => askPassphrase(question, terminal, isEmptyAllowed))

/** Asks for a word that is no secret, and shows it as it is typed. @throws {KeyriseError} ERR_CONFIG_INVALID: no terminal. */
export const askWord = (question: string): Promise<string> =>
  withTerminal(async (terminal) => {
    const asking = createInterface({ input: terminal, output: process.stderr })
    try {
      return (await asking.question(question)).trim()
    } finally {
      asking.close()
    }
  })

/** The passphrase by the way that the command line gives; asked twice where a new one is chosen. */
export const readPassphrase = async (options: {
  readonly descriptor: number | undefined
  /** The name of a systemd credential. */
  readonly credential?: string | undefined
  readonly isNew: boolean
  /** Whose passphrase it is, as the question says it. */
  readonly of?: string
}): Promise<Bytes> => {
  if (options.descriptor !== undefined) return readPassphraseFrom(options.descriptor, '--passphrase-fd')
  if (options.credential !== undefined) return readCredential(options.credential)
  return withTerminal((terminal) => choosePassphrase(options, terminal))
}

const choosePassphrase = async (
  { isNew, of = 'the keyring' }: { readonly isNew: boolean; readonly of?: string },
  terminal: ReadStream,
): Promise<Bytes> => {
  const first = await askPassphrase(`Passphrase of ${of}: `, terminal)
  if (!isNew) return first
  const second = await askPassphrase('The same again: ', terminal)
  const isSame = first.length === second.length && first.every((byte, index) => byte === second[index])
  second.fill(0)
  if (isSame) return first
  first.fill(0)
  throw new KeyriseError('ERR_CONFIG_INVALID', { detail: 'the two passphrases differ' })
}
