import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { open, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { fileURLToPath } from 'node:url'
import type { Measurement } from '../measurement.js'
import { randomBytes } from '../peers/files.js'
import { identityText, sealOurs } from '../peers/keyrise.js'
import { result, type Result, type Series } from '../report.js'
import { Scratch } from '../scratch.js'
import { compare, median, summarise } from '../statistics.js'
import { commandSeconds, lackOf, type CommandRun } from '../timing.js'

const COMMAND = fileURLToPath(new URL('../../bin/keyrise.js', import.meta.url))
const SIZE_BYTES = 2 ** 30
const CURVE_SIZES_BYTES = [2 ** 20, 2 ** 26, SIZE_BYTES]

/** A sealed file on disk, and whoever can open it. */
interface Sealed {
  readonly directory: string
  readonly key: string
  readonly file: string
  readonly sizeBytes: number
}

type Who = 'keyrise' | 'age'

/** What each is called with, besides where to write. */
const opening = (who: Who, { key, file }: Sealed, flags: readonly string[]): Pick<CommandRun, 'command' | 'args'> =>
  who === 'age'
    ? { command: 'age', args: ['-d', '-i', key, ...flags, file] }
    : { command: process.execPath, args: [COMMAND, 'envelope', 'open', '-i', key, ...flags, file] }

/** MB/s from the start of the process to its end, plaintext to the null device. */
const toNothing = async (who: Who, sealed: Sealed): Promise<number> => {
  const nothing = await open('/dev/null', 'w')
  try {
    return sealed.sizeBytes / 1e6 / (await commandSeconds({ ...opening(who, sealed, []), stdout: nothing.fd }))
  } finally {
    await nothing.close()
  }
}

/** MB/s, to a new file, which goes afterwards. */
const toFile = async (who: Who, sealed: Sealed, look?: (file: string) => Promise<void>): Promise<number> => {
  const out = join(sealed.directory, `${who}.out`)
  try {
    const seconds = await commandSeconds(opening(who, sealed, ['-o', out]))
    await look?.(out)
    return sealed.sizeBytes / 1e6 / seconds
  } finally {
    await rm(out, { force: true })
  }
}

const digestOfFile = async (file: string): Promise<string> => {
  const hash = createHash('sha256')
  await pipeline(createReadStream(file, { highWaterMark: 2 ** 20 }), hash)
  return hash.digest('hex')
}

/** Seals a file for `use`, has both open it to a file whose digest is compared, and leaves it in the page cache for both. */
const withSealed = async (sizeBytes: number, use: (sealed: Sealed) => Promise<void>): Promise<void> => {
  await using scratch = await Scratch.make()
  const directory = scratch.path
  const sealed = { directory, key: join(directory, 'key.txt'), file: join(directory, 'sealed.age'), sizeBytes }
  const plaintext = randomBytes(sizeBytes)
  const digest = createHash('sha256').update(plaintext).digest('hex')
  await writeFile(sealed.key, identityText(), { mode: 0o600 })
  await writeFile(sealed.file, sealOurs(plaintext))
  for (const who of ['keyrise', 'age'] as const)
    await toFile(who, sealed, async (out) => {
      if ((await digestOfFile(out)) !== digest) throw new Error(`${who}: the plaintext is another one`)
    })
  await use(sealed)
}

const KINDS = [
  ['keyrise > /dev/null', (sealed: Sealed) => toNothing('keyrise', sealed)],
  ['age -d > /dev/null', (sealed: Sealed) => toNothing('age', sealed)],
  ['keyrise -o file', (sealed: Sealed) => toFile('keyrise', sealed)],
  ['age -d -o file', (sealed: Sealed) => toFile('age', sealed)],
] as const
const CURVE_RUN_COUNT_MAX = 3

/** P4: whole processes, from start to exit, on the same file in the page cache. Each size’s file is made once for row and curve. */
export const command: Measurement = {
  names: ['P4', 'command'],
  lacks: () => lackOf('age'),
  async measure(scale, { say, wants }) {
    const { runs, bytes } = scale
    const results: Result[] = []
    const series = KINDS.map(([name]): Series & { points: [number, number][] } => ({ name, points: [] }))
    const sizes = [...(wants('command') ? scale.points(CURVE_SIZES_BYTES) : []), SIZE_BYTES].map(bytes)
    for (const sizeBytes of new Set(sizes)) {
      say(`P4: making a file of ${sizeBytes} bytes`)
      await withSealed(sizeBytes, async (sealed) => {
        if (wants('P4') && sizeBytes === bytes(SIZE_BYTES)) {
          const sides = { ours: () => toNothing('keyrise', sealed), peer: () => toNothing('age', sealed) }
          const pairs = await compare(sides, runs, (run) => say(`P4: run ${run} of ${runs}`))
          results.push(result('P4', 'age -d', summarise(pairs)))
        }
        if (!wants('command')) return
        say(`command: ${sizeBytes} bytes`)
        const figures = await figuresOf(sealed, Math.min(CURVE_RUN_COUNT_MAX, runs))
        for (const [index, { points }] of series.entries()) points.push([sizeBytes, figures[index] ?? 0])
      })
    }
    if (!wants('command')) return { results }
    return {
      results,
      curves: { command: { what: 'opening a file, whole process', x: 'payload, bytes', y: 'MB/s', series } },
    }
  },
}

/** The median of each of KINDS, who take turns. */
const figuresOf = async (sealed: Sealed, runs: number): Promise<number[]> => {
  const figures: number[][] = KINDS.map(() => [])
  for (let run = 0; run < runs; run++)
    for (const [index, [, measure]] of KINDS.entries()) figures[index]?.push(await measure(sealed))
  return figures.map(median)
}
