import { spawnSync } from 'node:child_process'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { leaks, LEAKS, Skipped, stops, STOPPED, type Attack, type Finding } from '../attack.js'
import { formsIn } from '../canary.js'
import { masked } from '../mask.js'
import { dumpMemory } from '../memory-dump.js'
import { isRoot, needsLinux, needsRoot, type HostRun, type Stage } from '../stage.js'

/** Reading memory: from inside the process, from another one of the same user, and as root. */

const NOBODY = 65_534
/** Root may read everything: where the test has that right, host and attacker are made to be somebody else, one user both. */
const ordinaryUser = (): { uid?: number } => {
  if (!isRoot()) return {}
  const { status } = spawnSync(process.execPath, ['--version'], { cwd: '/', uid: NOBODY, gid: NOBODY })
  if (status !== 0) throw new Skipped('needs a Node that other users than root can run')
  return { uid: NOBODY }
}

/** The process that has the key: the host’s own, or the last of those that it started. */
export const holderOf = (stage: Stage, host: HostRun): number => {
  let pid = host.process.pid ?? 0
  if (stage.level !== 'process') return pid
  for (let children = childrenOf(pid); children.length > 0; children = childrenOf(pid)) pid = children.at(-1) ?? pid
  if (pid === host.process.pid) throw new Error('The enclave has no process of its own')
  return pid
}

const childrenOf = (pid: number): number[] =>
  readdirSync(`/proc/${pid}/task`)
    .map((task) => readFileSync(`/proc/${pid}/task/${task}/children`, 'latin1').trim())
    .filter((line) => line !== '')
    .flatMap((line) => line.split(' ').map(Number))

/** What a dump came to. */
const search = async (path: string, canary: Uint8Array): Promise<Finding> => {
  if (!existsSync(path)) return stops('the kernel denies it')
  const forms = formsIn(await readFile(path), canary)
  return forms.includes('raw') ? leaks('the key is found as it is') : stops('the key is not in it')
}

const READER = fileURLToPath(new URL('../reader.js', import.meta.url))

/** Reads the memory of the process with the key, by `read`, which writes a file where it is let. */
const readFrom = async (
  stage: Stage,
  uid: { uid?: number },
  read: (pid: number, path: string) => void,
): Promise<Finding> => {
  const host = await stage.host({ stays: true, calls: [], ...uid })
  await host.ready()
  const path = join(host.directory, 'dump')
  read(holderOf(stage, host), path)
  return search(path, await host.canary())
}

const procMem: Attack = {
  name: 'proc-mem-same-uid',
  attacker: 'H3',
  tries: '/proc/PID/mem, read by another process of the same user',
  expected: { bare: 'leaks', worker: 'leaks', process: 'stops' },
  run(stage) {
    needsLinux()
    const user = ordinaryUser()
    return readFrom(stage, user, (pid, path) => {
      const { uid } = user
      spawnSync(process.execPath, [READER, String(pid), path], uid === undefined ? {} : { uid, gid: uid })
    })
  },
}

/** What the kernel shows of a process to whoever may trace it. */
const ENTRIES = 'environ maps smaps mem auxv io syscall stack pagemap fd fdinfo map_files cwd root exe'.split(' ')
/** Prints those that it could read. */
const ENTRY_READER = `
  const fs = require('node:fs'), [pid, ...names] = process.argv.slice(1)
  const isRead = (path) => {
    for (const read of [() => fs.readlinkSync(path), () => fs.readdirSync(path), () => fs.closeSync(fs.openSync(path))])
      try { read(); return true } catch {}
    return false
  }
  console.log(names.filter((name) => isRead('/proc/' + pid + '/' + name)).join())`

const procEntries: Attack = {
  name: 'proc-entries-same-uid',
  attacker: 'H3',
  tries:
    'what /proc/PID has of environment, mappings, open files and directories, read by another process of the same user',
  expected: { bare: 'leaks', worker: 'leaks', process: 'stops' },
  async run(stage) {
    needsLinux()
    const { uid } = ordinaryUser()
    const host = await stage.host({ stays: true, calls: [], ...(uid === undefined ? {} : { uid }) })
    await host.ready()
    const { stdout } = spawnSync(
      process.execPath,
      ['--eval', ENTRY_READER, '--', String(holderOf(stage, host)), ...ENTRIES],
      { encoding: 'utf8', cwd: '/', ...(uid === undefined ? {} : { uid, gid: uid }) },
    )
    const names = stdout.trim().split(',')
    return names[0] === '' ? stops('the kernel denies each') : leaks('it reads the environment, and more')
  },
}

/** For as long as this, `strace` holds what it attached to. */
const ATTACHED_MS = 1_000

const ptrace: Attack = {
  name: 'ptrace-same-uid',
  attacker: 'H3',
  tries: 'ptrace by another process of the same user, which gives it memory and registers',
  expected: { bare: 'leaks', worker: 'leaks', process: 'stops' },
  async run(stage) {
    needsLinux()
    if (spawnSync('strace', ['-V']).error !== undefined) throw new Skipped('needs strace')
    const user = ordinaryUser()
    const host = await stage.host({ stays: true, calls: [], ...user })
    await host.ready()
    const { stderr } = spawnSync('strace', ['-p', String(holderOf(stage, host)), '-o', '/dev/null'], {
      ...(user.uid === undefined ? {} : { uid: user.uid, gid: user.uid }),
      timeout: ATTACHED_MS,
      killSignal: 'SIGINT',
    })
    return /attached/.test(String(stderr)) ? leaks('it attaches') : stops('the kernel denies it')
  },
}

const rootReads: Attack = {
  name: 'root-reads-child',
  attacker: 'H4',
  tries: '/proc/PID/mem, read by root',
  expected: LEAKS,
  needsTee: true,
  run(stage) {
    needsRoot()
    return readFrom(stage, {}, (pid, path) => void spawnSync(process.execPath, [READER, String(pid), path]))
  },
}

const selfMem: Attack = {
  name: 'worker-proc-self-mem',
  attacker: 'H3',
  tries: '/proc/self/mem, read by native code, or any code, in the host’s process',
  expected: { bare: 'leaks', worker: 'leaks', process: 'stops' },
  async run(stage) {
    needsLinux()
    const victim = await stage.launch()
    const path = join(stage.directory, 'dump')
    dumpMemory('self', path)
    return search(path, await victim.canary())
  },
}

const zeroise: Attack = {
  name: 'zeroise-scan',
  attacker: 'H3',
  tries: 'the host’s memory, read once the enclave was closed',
  expected: STOPPED,
  async run(stage) {
    needsLinux()
    const victim = await stage.launch()
    await victim.call('sign', new Uint8Array(8))
    const told = await victim.maskedCanary()
    await victim.end()
    await victim.instance.exited
    return searchSelf(stage, told)
  },
}

const rawTerminate: Attack = {
  name: 'terminate-leaves-keys',
  attacker: 'H1',
  tries:
    'the end that runs no code of the enclave’s, `worker.terminate()` or SIGKILL, then the host’s memory. A process’s own memory goes back to the kernel, which clears it',
  expected: { bare: 'leaks', worker: 'leaks', process: 'stops' },
  async run(stage) {
    needsLinux()
    const victim = await stage.launch()
    const told = await victim.maskedCanary()
    await victim.instance.kill()
    await victim.instance.exited
    return searchSelf(stage, told)
  },
}

/** Searches this process’s memory for halves of a key that it knows only masked. */
const searchSelf = async (stage: Stage, told: Uint8Array): Promise<Finding> => {
  const path = join(stage.directory, 'dump')
  dumpMemory('self', path)
  const dump = await readFile(path)
  const key = Buffer.from(masked(told))
  // An allocator writes over the beginning of what is freed.
  const isLeft =
    formsIn(dump, key).length > 0 || [key.subarray(16), key.subarray(0, 16)].some((half) => dump.includes(half))
  return isLeft ? leaks('half the key, at least, outlives the enclave') : stops('no half of the key is left')
}

export const MEMORY_ATTACKS: readonly Attack[] = [
  zeroise,
  rawTerminate,
  selfMem,
  procMem,
  procEntries,
  ptrace,
  rootReads,
]
