import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { leaks, stops, STOPPED, type Attack } from '../attack.js'
import { formsInFiles } from '../canary.js'
import { CANARY_FILE, type Stage } from '../stage.js'

/** Code that Node is told to run before any other: in each thread that inherits it, the keeper’s included. */

/** Wraps `createHmac` in every thread but the main one. */
const hookFor = (stolen: string): string => `
  const { isMainThread } = require('node:worker_threads')
  const { writeFileSync } = require('node:fs')
  const crypto = require('node:crypto')
  const { createHmac } = crypto
  if (!isMainThread)
    crypto.createHmac = (name, key) => {
      writeFileSync(${JSON.stringify(stolen)}, Buffer.from(key).toString('hex'))
      return createHmac(name, key)
    }`

/** Changes the keeper’s source as it is loaded. */
const loaderFor = (stolen: string): string => `
  const theft = \`process.getBuiltinModule('node:fs').writeFileSync(${JSON.stringify(stolen)}, Buffer.from(key).toString('hex'));\`
  export const load = async (url, context, next) => {
    const loaded = await next(url, context)
    if (!url.endsWith('/keeper.js')) return loaded
    return { ...loaded, source: String(loaded.source).replace('keeperOf = (key) => {', (all) => all + theft) }
  }`

const run = async (
  stage: Stage,
  options: (hook: string) => { flags?: string[]; env?: Record<string, string> },
  isLoader: boolean,
): Promise<boolean> => {
  const stolen = join(stage.directory, 'stolen.txt')
  const hook = join(stage.directory, isLoader ? 'hook.mjs' : 'hook.cjs')
  await writeFile(hook, isLoader ? loaderFor(stolen) : hookFor(stolen))
  const host = await stage.host(options(isLoader ? pathToFileURL(hook).href : hook))
  await host.exited
  const forms = await formsInFiles(stage.directory, await host.canary(), [CANARY_FILE])
  await writeFile(stolen, '')
  return forms.length > 0
}

const WAYS = ['--require', '--import', '--experimental-loader'] as const

const preloadMatrix: Attack = {
  name: 'preload-matrix',
  attacker: 'H2',
  tries:
    'hooks given to the host’s process by NODE_OPTIONS and by arguments, each as `--require`, `--import` and `--experimental-loader`',
  expected: STOPPED,
  async run(stage) {
    const ran: string[] = []
    for (const way of WAYS) {
      const isLoader = way === '--experimental-loader'
      if (await run(stage, (hook) => ({ env: { NODE_OPTIONS: `${way}=${hook}` } }), isLoader))
        ran.push(`NODE_OPTIONS ${way}`)
      if (await run(stage, (hook) => ({ flags: [`${way}=${hook}`] }), isLoader)) ran.push(way)
    }
    if (stage.level === 'bare' && ran.length < 2 * WAYS.length)
      throw new Error(`Of six ways only these ran: ${ran.join(', ')}`)
    return ran.length > 0 ? leaks(`the hook runs beside the key: ${ran.join(', ')}`) : stops('no hook runs')
  },
}

export const PRELOAD_ATTACKS: readonly Attack[] = [preloadMatrix]
