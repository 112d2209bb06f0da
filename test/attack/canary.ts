import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'

/** How a key can lie about: as it is, or as the text that somebody made of it. */
const formsOf = (canary: Uint8Array): [form: string, needle: Buffer][] => {
  const raw = Buffer.from(canary)
  const hex = raw.toString('hex')
  return [
    ['raw', raw],
    ['hex', Buffer.from(hex)],
    ['upper-case hex', Buffer.from(hex.toUpperCase())],
    ['base64', Buffer.from(raw.toString('base64').replace(/=+$/, ''))],
    ['base64url', Buffer.from(raw.toString('base64url'))],
    ['decimal', Buffer.from(BigInt(`0x${hex}`).toString())],
    ['a list of numbers', Buffer.from(raw.join(','))],
  ]
}

/** The forms in which `canary` stands in `data`. */
export const formsIn = (data: Uint8Array | string, canary: Uint8Array): string[] => {
  const searched = typeof data === 'string' ? Buffer.from(data) : Buffer.from(data.buffer, data.byteOffset, data.length)
  return formsOf(canary)
    .filter(([, needle]) => searched.includes(needle))
    .map(([form]) => form)
}

/** The same over every file of a directory; `but` are names that are the test's own. */
export const formsInFiles = async (
  directory: string,
  canary: Uint8Array,
  but: readonly string[] = [],
): Promise<string[]> => {
  const found = new Set<string>()
  for (const entry of await readdir(directory, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile() || but.includes(entry.name)) continue
    for (const form of formsIn(await readFile(join(entry.parentPath, entry.name)), canary)) found.add(form)
  }
  return [...found]
}

/** An answer as text, its bytes as hex. */
export const textOf = (answer: unknown): string =>
  JSON.stringify(answer, (_, value: unknown) => {
    if (value instanceof Uint8Array) return Buffer.from(value).toString('hex')
    return typeof value === 'bigint' ? String(value) : value
  })
