import { spawn } from 'node:child_process'
import { cp, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import typescript from 'typescript'
import { plant, type PlantedFault } from './fault.js'

const ROOT = fileURLToPath(new URL('../../../', import.meta.url))
/** What a test may read beside the compiled code. */
const COPIED = ['dist', 'package.json', 'docs', 'examples', 'test/vectors']
/** Of the tests of one fault, which take seconds each. What is not over by then hangs. */
const LIMIT_MS = 2 * 60 * 1000

/** How a file of tests ended. */
export interface Outcome {
  readonly status: 'passed' | 'failed' | 'hung' | 'broken'
  /** The test that failed, or what was said instead. */
  readonly detail: string
}

const readSource = (file: string): Promise<string> => readFile(join(ROOT, file), 'utf8')

/** The source of `fault.file` with the fault in it, compiled. @throws {Error} as `plant`, or where it does not parse. */
const compile = async (fault: PlantedFault): Promise<string> => {
  const { outputText, diagnostics = [] } = typescript.transpileModule(plant(fault, await readSource(fault.file)), {
    compilerOptions: {
      target: typescript.ScriptTarget.ES2023,
      module: typescript.ModuleKind.ESNext,
      verbatimModuleSyntax: true,
    },
    reportDiagnostics: true,
  })
  const [wrong] = diagnostics
  if (wrong !== undefined)
    throw new Error(`"${fault.name}": ${typescript.flattenDiagnosticMessageText(wrong.messageText, '\n')}`)
  return outputText
}

/** Which faults have lost their place, each with why: the sources have moved on, and the list must follow. */
export const findDrift = async (faults: readonly PlantedFault[]): Promise<string[]> => {
  const drifted: string[] = []
  for (const fault of faults) {
    try {
      plant(fault, await readSource(fault.file))
    } catch (error) {
      drifted.push(error instanceof Error ? error.message : String(error))
    }
  }
  return drifted
}

/** A copy of the built product in a temporary directory, in which faults are planted one after the other. */
export class Workshop implements AsyncDisposable {
  readonly #directory: string
  readonly #limitMs: number

  private constructor(directory: string, limitMs: number) {
    this.#directory = directory
    this.#limitMs = limitMs
  }

  /** @param limitMs - of each run. */
  static async open(limitMs = LIMIT_MS): Promise<Workshop> {
    const directory = await mkdtemp(join(tmpdir(), 'keyrise-mutants-'))
    for (const name of COPIED) await cp(join(ROOT, name), join(directory, name), { recursive: true })
    await symlink(join(ROOT, 'node_modules'), join(directory, 'node_modules'))
    return new Workshop(directory, limitMs)
  }

  /** Runs the tests of `fault` without it. */
  runSound(fault: PlantedFault): Promise<Outcome> {
    return this.#run(fault)
  }

  /** Plants `fault`, runs its tests, and takes it out again. */
  async runPlanted(fault: PlantedFault): Promise<Outcome> {
    const compiled = join(this.#directory, 'dist', fault.file.replace(/\.ts$/, '.js'))
    const sound = await readFile(compiled)
    await writeFile(compiled, await compile(fault))
    try {
      return await this.#run(fault)
    } finally {
      await writeFile(compiled, sound)
    }
  }

  #run({ test, title }: PlantedFault): Promise<Outcome> {
    const ava = join(ROOT, 'node_modules/ava/entrypoints/cli.mjs')
    const chosen = title === undefined ? [] : [`--match=*${title}*`]
    const child = spawn(process.execPath, [ava, '--tap', '--fail-fast', ...chosen, `dist/test/${test}.js`], {
      cwd: this.#directory,
      stdio: ['ignore', 'pipe', 'pipe'],
      // The leader of a group, so that what it has started ends with it.
      detached: true,
    })
    const said: Buffer[] = []
    const end = (): void => endGroup(child.pid)
    child.stderr.on('data', (chunk: Buffer) => said.push(chunk))
    child.stdout.on('data', (chunk: Buffer) => {
      said.push(chunk)
      // That will do; and what a test that fails leaves open may keep its process for ever.
      if (failedTest(Buffer.concat(said).toString()) !== undefined) end()
    })
    process.once('exit', end)
    return new Promise<Outcome>((resolve, reject) => {
      const limit = setTimeout(() => {
        end()
        resolve({ status: 'hung', detail: `not over after ${String(this.#limitMs / 1000)} s` })
      }, this.#limitMs)
      child.on('error', reject)
      child.on('close', (code) => {
        clearTimeout(limit)
        resolve(judge(code, Buffer.concat(said).toString()))
      })
    }).finally(() => process.off('exit', end))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await rm(this.#directory, { recursive: true, force: true })
  }
}

/** Ends a process and all that it has started, unless they are over. */
const endGroup = (leader: number | undefined): void => {
  if (leader === undefined) return
  try {
    process.kill(-leader, 'SIGKILL')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error
  }
}

/** A test that fails is what is wanted; a file that cannot be loaded, or that runs no test, proves nothing. */
const judge = (code: number | null, tap: string): Outcome => {
  if (code === 0 && /^ok \d/m.test(tap)) return { status: 'passed', detail: '' }
  const failed = failedTest(tap)
  return failed === undefined ? { status: 'broken', detail: tap.slice(-1500) } : { status: 'failed', detail: failed }
}

/** The first test that TAP says has failed, by a whole line. */
const failedTest = (tap: string): string | undefined =>
  /^not ok \d+ - (?!dist\/|No tests|Couldn’t find)(.*)\n/m.exec(tap)?.[1]
