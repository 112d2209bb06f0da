import { openSync } from 'node:fs'
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
const readPassphraseFrom = async (descriptor: number): Promise<Bytes> => {
  const buffer = allocate(PASSPHRASE_SIZE_BYTES_MAX + 2)
  try {
    let size = 0
    while (size < buffer.length && !buffer.subarray(0, size).includes(KEY.enter[0])) {
      const count = await readSome(descriptor, buffer.subarray(size), null).catch((error: unknown) => {
        throw new KeyriseError('ERR_CONFIG_INVALID', { detail: `--passphrase-fd: ${systemCode(error) ?? 'unknown'}` })
      })
      if (count === 0) break
      size += count
    }
    return takeLine(buffer.subarray(0, size))
  } finally {
    buffer.fill(0)
  }
}

const takeLine = (bytes: Bytes): Bytes => {
  const end = bytes.indexOf(KEY.enter[0])
  const line = end === -1 ? bytes : bytes.subarray(0, end)
  const text = line.at(-1) === KEY.enter[1] ? line.subarray(0, -1) : line
  if (text.length === 0) throw new KeyriseError('ERR_CONFIG_INVALID', { detail: 'the passphrase is empty' })
  if (text.length > PASSPHRASE_SIZE_BYTES_MAX)
    throw new KeyriseError('ERR_CONFIG_INVALID', { detail: 'the passphrase is longer than 1024 bytes' })
  return copyBytes(text)
}

/** Asks on a terminal, without echo. The caller zero-fills the answer. @throws {Interrupted} on Ctrl-C. */
const askPassphrase = (question: string, terminal: ReadStream): Promise<Bytes> => {
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
  return typing.then(() => takeLine(buffer.subarray(0, size))).finally(() => buffer.fill(0))
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

/** The passphrase by the way that the command line gives; asked twice where a new one is chosen. */
export const readPassphrase = async (options: {
  readonly descriptor: number | undefined
  readonly isNew: boolean
  /** Whose passphrase it is, as the question says it. */
  readonly of?: string
}): Promise<Bytes> => {
  if (options.descriptor !== undefined) return readPassphraseFrom(options.descriptor)
  const terminal = openTerminal()
  try {
    return await choosePassphrase(options, terminal)
  } finally {
    // A terminal that we opened would keep the process waiting for what is typed next.
    if (terminal !== process.stdin) terminal.destroy()
  }
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
