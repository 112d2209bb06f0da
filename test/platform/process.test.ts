import { spawn, spawnSync, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import test from 'ava'
import { buildTarget, Host, launchTarget, withPlatform } from '../enclave/target.js'
import { childrenOf, isRunning, type RunningProcess } from './processes.js'

/** Attacks on an enclave in a process of its own by other processes, each on a bare process first, where it must succeed. */

const image = buildTarget()
const linux = process.platform === 'linux' ? test.serial : test.serial.skip
const SCRIPT = fileURLToPath(new URL('./process-host.js', import.meta.url))
const IDLE = ['-e', 'setInterval(() => {}, 1000)']
const isRoot = process.geteuid?.() === 0
/** Whom a host runs as that is not root: the tests’ own user, or nobody. */
const USER = isRoot ? 65_534 : process.getuid?.()
const identity = (user = USER) => (isRoot && user !== undefined ? { uid: user, gid: user } : {})

interface RunningHost {
  readonly host: ChildProcess
  readonly enclave: number
}

/** Runs process-host.ts, by way of `wrapper`, and waits until its enclave serves. */
const withHost = async (
  given: { readonly task?: string; readonly ending?: string; readonly asUser?: boolean; readonly wrapper?: string },
  use: (running: RunningHost) => Promise<void> | void,
): Promise<void> => {
  const { task = 'wait', ending = 'signal', asUser = false, wrapper = 'exec "$@"' } = given
  const directory = await mkdtemp(join(tmpdir(), 'keyrise-host-'))
  const file = join(directory, 'image')
  await writeFile(file, (await image).source)
  await chmod(directory, 0o777)
  const host = spawn(
    '/bin/bash',
    ['-c', wrapper, 'sh', process.execPath, SCRIPT, file, join(directory, 'platform'), task, ending],
    {
      stdio: ['ignore', 'pipe', 'inherit'],
      env: {},
      ...(asUser ? identity() : {}),
    },
  )
  try {
    const [line] = (await once(createInterface(host.stdout), 'line')) as [string]
    await use({ host, enclave: Number(line) })
  } finally {
    host.kill('SIGKILL')
    await rm(directory, { recursive: true, force: true })
  }
}

const isEnclave = ({ commandLine }: RunningProcess): boolean => commandLine.includes('--input-type=commonjs')

const linksOf = (pid: number): string[] =>
  readdirSync(`/proc/${String(pid)}/fd`).flatMap((descriptor) => {
    try {
      return [readlinkSync(`/proc/${String(pid)}/fd/${descriptor}`)]
    } catch {
      return []
    }
  })

const textOf = (pid: number, file: string): string => readFileSync(`/proc/${String(pid)}/${file}`, 'utf8')

for (const ending of ['signal', 'watcher']) {
  for (const task of ['wait', 'spin']) {
    linux(`an enclave that ${task}s ends with its host, by ${ending}`, async (t) => {
      await withHost({ task, ending }, async ({ host, enclave }) => {
        t.true(isRunning(enclave))
        host.kill('SIGKILL')
        while (isRunning(enclave)) await new Promise((resolve) => setTimeout(resolve, 20))
        t.false(isRunning(enclave))
      })
    })
  }
}

/** Needs to look into a process that nobody but root can. */
const asRoot = isRoot ? linux : test.serial.skip

asRoot('it has no environment, no arguments but flags, and no files', async (t) => {
  await withHost(
    { wrapper: 'exec 200</etc/hostname; exec 9</etc/hostname; SECRET=1 exec "$@"' },
    ({ host, enclave }) => {
      t.true(linksOf(host.pid as number).includes('/etc/hostname'))
      t.is(textOf(enclave, 'environ'), '')
      const links = linksOf(enclave)
      t.deepEqual(
        links.filter(
          (link) => !/^(?:socket|pipe):|^anon_inode:\[(?:eventfd|eventpoll|io_uring)\]|^\/dev\/null$/.test(link),
        ),
        [],
      )
      // The standard input at its end, and four to the host.
      t.is(links.filter((link) => link.startsWith('socket:')).length, 5)
    },
  )
})

asRoot('it leaves no core file, whatever the host’s limit', async (t) => {
  await withHost({ wrapper: 'ulimit -S -c "$(ulimit -H -c)"; exec "$@"' }, ({ host, enclave }) => {
    const limit = (pid: number): string => /Max core file size\s+(.*\S)/.exec(textOf(pid, 'limits'))?.[1] ?? ''
    t.regex(limit(enclave), /^0 +0 +bytes$/)
    t.not(limit(host.pid as number), limit(enclave))
  })
})

/** Reads the first bytes of another process’s memory: their number in hex, or why not. */
const READ_MEMORY = `
  const fs = require('node:fs')
  const of = '/proc/' + process.argv[1]
  try {
    const start = parseInt(fs.readFileSync(of + '/maps', 'utf8'), 16)
    const bytes = Buffer.alloc(4)
    fs.readSync(fs.openSync(of + '/mem'), bytes, 0, 4, start)
    console.log(bytes.toString('hex'))
  } catch ({ code }) {
    console.log(code)
  }`
const readMemory = (pid: number, user?: number): string =>
  spawnSync(process.execPath, ['-e', READ_MEMORY, String(pid)], {
    encoding: 'utf8',
    env: {},
    cwd: '/',
    ...identity(user),
  }).stdout.trim()

const hasStrace = spawnSync('strace', ['-V']).status === 0
/** True where a debugger attaches, and stays so until it is made to go. */
const isTraceable = (pid: number, timeoutMs: number, user?: number): boolean =>
  spawnSync('strace', ['-p', String(pid), '-o', '/dev/null'], { timeout: timeoutMs, ...identity(user) }).status !== 1

/** Runs Node without anything around it as `user`. */
const withBareProcess = async (user: number | undefined, use: (pid: number) => void): Promise<void> => {
  const bare = spawn(process.execPath, ['-e', 'console.log(1); setInterval(() => {}, 1000)'], {
    stdio: ['ignore', 'pipe', 'inherit'],
    env: {},
    cwd: '/',
    ...identity(user),
  })
  await once(bare.stdout, 'data')
  try {
    use(bare.pid as number)
  } finally {
    bare.kill('SIGKILL')
  }
}

const userOf = (pid: number): number => Number(/^Uid:\s+(\d+)/m.exec(textOf(pid, 'status'))?.[1])

/** False where Node lies in root’s own directory. */
const hasOtherUser = spawnSync(process.execPath, ['--version'], { cwd: '/', ...identity() }).status === 0

for (const asUser of isRoot ? [true, false] : [true]) {
  const whose = asUser ? 'a host that is not root' : 'a host that is root'
  const attempt = hasOtherUser ? linux : test.serial.skip
  attempt(`other processes of its user cannot read it or attach to it, of ${whose}`, async (t) => {
    await withHost({ asUser }, async ({ host, enclave }) => {
      const user = userOf(enclave)
      t.is(user === userOf(host.pid as number), asUser)
      await withBareProcess(user, (bare) => {
        t.is(readMemory(bare, user), '7f454c46')
        if (hasStrace) t.true(isTraceable(bare, 300, user))
      })
      t.is(readMemory(enclave, user), 'EACCES')
      if (hasStrace) t.false(isTraceable(enclave, 20_000, user))
      t.true(isRunning(enclave))
    })
  })
}

asRoot('enclaves of a host that is root have a user each', async (t) => {
  await withPlatform(async (platform) => {
    const hosts = [1, 2].map(() =>
      image.then((built) => new Host(launchTarget(platform, built, { isolation: 'process' }))),
    )
    const instances = await Promise.all(hosts)
    await Promise.all(instances.map((host) => host.ready()))
    const users = childrenOf(process.pid)
      .filter(isEnclave)
      .map(({ pid }) => userOf(pid))
    t.is(new Set([...users, 0]).size, 3)
    await Promise.all(instances.map(({ instance }) => instance.terminate()))
  })
})

linux('the signal that opens Node’s debugger opens nothing, and ends nothing', async (t) => {
  const bare = spawn(process.execPath, ['--inspect-port=0', ...IDLE], { stdio: ['ignore', 'inherit', 'pipe'] })
  const said = once(bare.stderr, 'data')
  const signals = setInterval(() => bare.kill('SIGUSR1'), 100)
  t.regex(String(await said), /Debugger listening/)
  clearInterval(signals)
  bare.kill('SIGKILL')
  await withPlatform(async (platform) => {
    const host = new Host(launchTarget(platform, await image, { isolation: 'process' }))
    await host.ready()
    const [enclave] = childrenOf(process.pid).filter(isEnclave)
    const threads = (): number => readdirSync(`/proc/${String(enclave?.pid)}/task`).length
    const before = threads()
    for (let count = 0; count < 10; count++) {
      process.kill(enclave?.pid as number, 'SIGUSR1')
      t.is(await host.call('add', { a: 1, b: count }), 1 + count)
    }
    // The debugger would listen on a thread of its own.
    t.is(threads(), before)
    await host.instance.terminate()
    t.is((await host.instance.exited).reason, 'ended')
  })
})

for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) {
  linux(`${signal} lets it wipe`, async (t) => {
    await withPlatform(async (platform) => {
      const host = new Host(launchTarget(platform, await image, { isolation: 'process' }))
      await host.ready()
      const [enclave] = childrenOf(process.pid).filter(isEnclave)
      process.kill(enclave?.pid as number, signal)
      t.is((await host.instance.exited).reason, 'ended')
      t.true(JSON.stringify(host.ocalls).includes('"wiped"'))
    })
  })
}
