import { spawnSync } from 'node:child_process'
import { randomInt } from 'node:crypto'
import { accessSync, constants, openSync, readdirSync, readFileSync, statSync } from 'node:fs'
import { dirname } from 'node:path'
import { KeyriseError } from '../protocol/errors.js'
import { LoaderFile } from './loader-file.js'

/**
 * What surrounds an enclave's process, where the system has it:
 * - `own-user`: a user of its own, no other process's; where the host is root.
 * - `unreadable`: other processes of its user cannot read it, attach to it or have it dumped.
 * - `no-core`: it leaves no core file, whatever ends it.
 * - `ends-with-host`: the kernel ends it when the thread that launched it is gone, even while it computes; where that is
 *   missing, a watching process does.
 * - `no-new-privileges`: no program that it might start could gain any.
 */
export const PROCESS_MEASURES = ['own-user', 'unreadable', 'no-core', 'ends-with-host', 'no-new-privileges'] as const
export type ProcessMeasure = (typeof PROCESS_MEASURES)[number]

/** The permission model was experimental on Node 20. It also keeps the debugger shut, whatever signal asks for it. */
const permissionFlag = (major: number): string => (major >= 22 ? '--permission' : '--experimental-permission')

/** Node’s own flags, by version. Nothing is allowed: no file, child process, worker, addon, WASI or debugger. */
export const nodeFlags = (version: string): readonly string[] => {
  const [major = 0, minor = 0] = version.split('.').map(Number)
  const knowsSigusr1 = major > 23 || (major === 22 && minor >= 14) || (major === 23 && minor >= 7)
  return [
    permissionFlag(major),
    ...(knowsSigusr1 ? ['--disable-sigusr1'] : []),
    '--no-addons',
    '--no-warnings',
    '--disable-proto=delete',
    // As a worker’s resourceLimits.
    '--max-old-space-size=1024',
    // What comes on the standard input is a script, as it stands.
    '--input-type=commonjs',
    '-',
  ]
}

/** Programs that every Linux distribution has, looked for where only root writes. */
export interface Tools {
  readonly sh: string | undefined
  readonly env: string | undefined
  /** Of util-linux: busybox has one that knows no parent death signal. */
  readonly setpriv: string | undefined
}

const PRIVILEGE_FLAGS = ['--pdeathsig', 'KILL', '--no-new-privs', '--']

export const findTools = (): Tools => {
  const [sh, env, setpriv] = ['sh', 'env', 'setpriv'].map((name) =>
    ['/usr/bin', '/bin'].map((directory) => `${directory}/${name}`).find(isExecutable),
  )
  const works = sh !== undefined && setpriv !== undefined && succeeds(setpriv, [...PRIVILEGE_FLAGS, sh, '-c', ':'])
  return { sh, env, setpriv: works ? setpriv : undefined }
}

const isExecutable = (path: string): boolean => {
  try {
    accessSync(path, constants.X_OK)
    return true
  } catch {
    return false
  }
}

const succeeds = (command: string, args: readonly string[], identity: { uid?: number; gid?: number } = {}): boolean =>
  spawnSync(command, args, { stdio: 'ignore', env: {}, cwd: '/', ...identity }).status === 0

/** One start: a command, and what `spawn` needs beside it. */
export interface ProcessCommand {
  readonly command: string
  readonly args: readonly string[]
  /** The process's own user, where it has one. */
  readonly user: number | undefined
  /** Open files for the process to be made from, to be passed as descriptors from 7 on; the caller closes its own. */
  readonly files: readonly number[]
  /** Descriptors that it gets and has no use for, to be closed by its first lines: those files, and what the host inherited. */
  readonly foreign: readonly number[]
  /** When the process is gone: its user may be another's. */
  readonly release: () => void
}

/** systemd's range for users that exist while a service runs: nobody else has them. */
const USER_MIN = 61_184
const USER_LIMIT = 65_520

/** Knows, once for a platform, what this machine gives, and composes the commands. */
export class ProcessRecipe {
  readonly measures: readonly ProcessMeasure[]
  readonly #sh: string
  readonly #tools: Tools
  readonly #loader: LoaderFile | undefined
  readonly #hasUsers: boolean
  readonly #users = new Set<number>()

  /**
   * @param directory - where the loader’s copy may lie: the platform’s.
   * @param options.required - what there must be.
   * @throws {KeyriseError} ERR_ISOLATION_UNAVAILABLE.
   */
  constructor(
    directory: string,
    {
      required = [],
      tools = findTools(),
    }: { readonly required?: readonly ProcessMeasure[]; readonly tools?: Tools } = {},
  ) {
    const { sh } = tools
    if (sh === undefined) throw new KeyriseError('ERR_ISOLATION_UNAVAILABLE', { detail: 'a POSIX shell is missing' })
    this.#sh = sh
    this.#tools = tools
    this.#loader = LoaderFile.in(directory, process.execPath)
    this.#hasUsers =
      process.geteuid?.() === 0 &&
      succeeds(sh, ['-c', ':'], { uid: USER_MIN, gid: USER_MIN }) &&
      isExecutable('/proc/self')
    const isGiven: Record<ProcessMeasure, boolean> = {
      'own-user': this.#hasUsers,
      unreadable: this.#loader !== undefined,
      'no-core': true,
      'ends-with-host': tools.setpriv !== undefined,
      'no-new-privileges': tools.setpriv !== undefined,
    }
    this.measures = PROCESS_MEASURES.filter((measure) => isGiven[measure])
    const missing = required.filter((measure) => !isGiven[measure])
    if (missing.length > 0) throw new KeyriseError('ERR_ISOLATION_UNAVAILABLE', { detail: missing.join(', ') })
  }

  /** False where the host has to see to it. */
  get endsWithHost(): boolean {
    return this.#tools.setpriv !== undefined
  }

  /** @throws {KeyriseError} ERR_ISOLATION_UNAVAILABLE. */
  command(): ProcessCommand {
    const { env, setpriv } = this.#tools
    const files: number[] = []
    // Another user may have no way to where a file lies; to a file that is open it has.
    const reachable = (path: string): string => {
      if (!this.#hasUsers || isOpenToAll(path)) return path
      return `/proc/self/fd/${String(FIRST_FILE_DESCRIPTOR + files.push(openSync(path, 'r')) - 1)}`
    }
    const user = this.#hasUsers ? this.#takeUser() : undefined
    const program = [this.#loader?.path(), process.execPath].filter((path) => path !== undefined).map(reachable)
    return {
      command: this.#sh,
      args: [
        '-c',
        // Both limits, so that it cannot be raised again. Some shells export variables of their own: `env` starts afresh.
        'ulimit -c 0 && exec "$@"',
        'sh',
        ...(env === undefined ? [] : [env, '-i']),
        ...(setpriv === undefined ? [] : [setpriv, ...PRIVILEGE_FLAGS]),
        ...program,
        ...nodeFlags(process.versions.node),
      ],
      user,
      files,
      foreign: [
        ...files.map((_, index) => FIRST_FILE_DESCRIPTOR + index),
        ...inherited(FIRST_FILE_DESCRIPTOR + files.length),
      ],
      release: () => {
        if (user !== undefined) this.#users.delete(user)
      },
    }
  }

  #takeUser(): number {
    if (this.#users.size === USER_LIMIT - USER_MIN)
      throw new KeyriseError('ERR_ISOLATION_UNAVAILABLE', { detail: 'no user is left for another process' })
    let user: number
    do user = randomInt(USER_MIN, USER_LIMIT)
    while (this.#users.has(user))
    this.#users.add(user)
    return user
  }
}

/** Behind the standard streams and the four sockets. */
const FIRST_FILE_DESCRIPTOR = 7
/** fcntl(2), as Linux has it on every processor that Node runs on. */
const CLOSE_ON_EXEC = 0o2000000

/**
 * Descriptors from `first` on that every process started by this one gets. Node marks its own, and the lowest of those that
 * it was started with; others reach whatever it starts.
 */
const inherited = (first: number): number[] => {
  if (process.platform !== 'linux') return []
  return readdirSync('/proc/self/fd')
    .map(Number)
    .filter((descriptor) => descriptor >= first && isInherited(descriptor))
}

const isInherited = (descriptor: number): boolean => {
  try {
    const [, flags = ''] =
      /^flags:\s*([0-7]+)$/m.exec(readFileSync(`/proc/self/fdinfo/${String(descriptor)}`, 'utf8')) ?? []
    return (Number.parseInt(flags, 8) & CLOSE_ON_EXEC) === 0
  } catch {
    // That which listed them.
    return false
  }
}

/** True where any user may read and execute the file, and pass every directory above it. */
const isOpenToAll = (path: string): boolean => {
  if ((statSync(path).mode & 0o005) !== 0o005) return false
  for (let directory = dirname(path); ; directory = dirname(directory)) {
    if ((statSync(directory).mode & 0o001) === 0) return false
    if (directory === dirname(directory)) return true
  }
}
