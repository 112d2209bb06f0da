import { DirectoryStore } from 'keyrise'
import { openCustody, scanForSecrets, type KnownSecret } from 'keyrise/faults'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import type { Readable, Writable } from 'node:stream'
import { fileURLToPath } from 'node:url'
import { COMMITMENT_KEY, commitmentOf } from './receipts.js'

/**
 * After the run, in a process of its own: opens custody with the passphrase, checks that every stored secret is there and is
 * the one that was stored, then searches everything that was written or sent for any of them.
 */
export interface LeakScanRequest {
  /** Everything in it is searched. */
  readonly directory: string
  readonly custody: string
  readonly store: string
  readonly flows: readonly string[]
  readonly steps: readonly string[]
  readonly receipts: Readonly<Record<string, Readonly<Record<string, string>>>>
}

export interface LeakScanResult {
  /** Entries that enclaves acknowledged, of every kind. */
  readonly secretsStored: number
  /** Of them, missing or changed in custody. */
  readonly secretsLost: readonly string[]
  /** Entries and keys that were searched for. */
  readonly secretsSearched: number
  readonly unsearchable: readonly string[]
  readonly leaks: readonly {
    readonly secret: string
    readonly path: string
    readonly form: string
    readonly offset: number
  }[]
  readonly filesScanned: number
  readonly bytesScanned: number
  readonly kinds: readonly string[]
}

/** Stored to survive, but released on purpose: who should see it has seen it, so finding it is no leak. */
export const RELEASED = [
  { entry: 'intermediate-result/round-*', reason: 'homomorphic ciphertexts, sent to the aggregator' },
  { entry: 'final-result/round-*', reason: 'the sums that the decryptor releases, and the model that they make' },
  { entry: 'processed-data/homomorphic-key', reason: 'the homomorphic public key' },
  { entry: 'interaction-id/terms', reason: 'the names of the parties and the terms, agreed in the open' },
] as const

const isReleased = (name: string): boolean =>
  RELEASED.some(({ entry }) => (entry.endsWith('*') ? name.startsWith(entry.slice(0, -1)) : name === entry))

/** Runs `scan` in a process of its own. @param passphrase - bytes, handed over on a pipe. */
export const scanInProcess = async (request: LeakScanRequest, passphrase: Uint8Array): Promise<LeakScanResult> => {
  const child = spawn(process.execPath, [fileURLToPath(import.meta.url), JSON.stringify(request)], {
    stdio: ['ignore', 'pipe', 'inherit', 'pipe'],
    env: {},
  })
  const pipe = child.stdio[3] as Writable
  pipe.end(passphrase)
  const [said, [code]] = await Promise.all([
    text(child.stdout as Readable),
    once(child, 'exit') as Promise<[number | null]>,
  ])
  if (code !== 0) throw new Error(`the leak scan failed with ${String(code)}`)
  return JSON.parse(said) as LeakScanResult
}

const scan = async (request: LeakScanRequest, passphrase: Uint8Array): Promise<LeakScanResult> => {
  const { custody, flows, steps, receipts } = request
  using opened = await openCustody({ custody, passphrase, store: new DirectoryStore(request.store), flows, steps })
  const entries: KnownSecret[] = []
  for (const [flow, named] of opened.entries) {
    for (const [name, bytes] of named) if (!isReleased(name)) entries.push({ name: `${flow}: ${name}`, bytes })
  }
  const stored = Object.entries(receipts).flatMap(([flow, named]) =>
    Object.entries(named).map(([name, claimed]) => ({ flow, name, claimed })),
  )
  const lost = stored.filter(({ flow, name, claimed }) => {
    const named = opened.entries.get(flow) as ReadonlyMap<string, Uint8Array> | undefined
    const [key, value] = [named?.get(COMMITMENT_KEY), named?.get(name)]
    return (
      key === undefined ||
      value === undefined ||
      Buffer.from(commitmentOf(key, name, value)).toString('hex') !== claimed
    )
  })
  const { leaks, bytesScanned, filesScanned, secretsSearched, unsearchable } = await scanForSecrets(
    filesUnder(request.directory),
    [...opened.keys, ...entries],
  )
  return {
    ...{ leaks, bytesScanned, filesScanned, secretsSearched, unsearchable },
    secretsStored: stored.length,
    secretsLost: lost.map(({ flow, name }) => `${flow}: ${name}`),
    kinds: [...new Set(stored.map(({ name }) => name.slice(0, name.indexOf('/'))))].sort(),
  }
}

const filesUnder = (directory: string): string[] =>
  readdirSync(directory, { withFileTypes: true, recursive: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const request = JSON.parse(process.argv[2] ?? '') as LeakScanRequest
  const passphrase = new Uint8Array(readFileSync(3))
  process.stdout.write(JSON.stringify(await scan(request, passphrase)))
  passphrase.fill(0)
}
