import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { readdir, readFile, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { leaks, Skipped, stops, type Attack } from '../attack.js'
import { formsIn } from '../canary.js'
import { isRoot, needsLinux } from '../stage.js'
import { holderOf } from './memory.js'

/** Signals, crashes and deaths of processes. */

const isRunning = (pid: number): boolean => {
  try {
    return !/^State:\s+[ZX]/m.test(readFileSync(`/proc/${pid}/status`, 'latin1'))
  } catch {
    return false
  }
}

/** True when the process listens on a TCP port, as its debugger would. */
const listens = (pid: number): boolean => {
  const sockets = readdirSync(`/proc/${pid}/fd`).map((fd) => {
    try {
      return /^socket:\[(\d+)\]/.exec(readlinkSync(`/proc/${pid}/fd/${fd}`))?.[1]
    } catch {
      return undefined
    }
  })
  const LISTEN = '0A'
  return ['tcp', 'tcp6'].some((table) =>
    readFileSync(`/proc/${pid}/net/${table}`, 'latin1')
      .split('\n')
      .map((line) => line.trim().split(/\s+/))
      .some((fields) => fields[3] === LISTEN && sockets.includes(fields[9])),
  )
}

const sigusr1: Attack = {
  name: 'sigusr1-closed',
  attacker: 'H3',
  tries: 'SIGUSR1 to the process that has the key, which makes Node open its debugger',
  expected: {
    bare: 'leaks',
    worker: { notApplicable: 'the host’s process opens its own debugger; nodeworker-attach-denied keeps it out' },
    process: 'stops',
  },
  async run(stage) {
    needsLinux()
    if (stage.level === 'process' && !isRoot()) throw new Skipped('needs root, to see the enclave’s sockets')
    const host = await stage.host({ stays: true, calls: [], flags: ['--inspect-port=127.0.0.1:0'] })
    await host.ready()
    const pid = holderOf(stage, host)
    process.kill(pid, 'SIGUSR1')
    await sleep(500)
    if (listens(pid)) return leaks('the debugger listens')
    const canary = await host.canary()
    return canary.length > 0 && isRunning(pid) ? stops('nothing listens, and the enclave serves on') : leaks('it died')
  },
}

/** Where the kernel would put a core file of a process that works in `directory`; undefined when it pipes it to a program. */
const coreFilesIn = async (directory: string, sinceMs: number): Promise<string[]> => {
  const found: string[] = []
  for (const name of await readdir(directory)) {
    if (!name.startsWith('core')) continue
    const path = join(directory, name)
    const { mtimeMs } = await stat(path)
    if (mtimeMs >= sinceMs) found.push(path)
  }
  return found
}

const core: Attack = {
  name: 'core-none',
  attacker: 'H3',
  tries: 'SIGABRT to the process that has the key, where core files are allowed without a limit',
  expected: { bare: 'leaks', worker: 'leaks', process: 'stops' },
  async run(stage) {
    needsLinux()
    if (!/^core/.test(readFileSync('/proc/sys/kernel/core_pattern', 'latin1')))
      throw new Skipped('needs a kernel that writes core files where the process works')
    const startMs = Date.now() - 1000
    const host = await stage.host({ stays: true, prelude: 'ulimit -c unlimited' })
    const canary = await host.canary()
    const pid = holderOf(stage, host)
    const working = readlinkSync(`/proc/${pid}/cwd`)
    process.kill(pid, 'SIGABRT')
    while (isRunning(pid)) await sleep(50)
    await sleep(200)
    const files = await coreFilesIn(working, startMs)
    const forms = await Promise.all(files.map(async (path) => formsIn(await readFile(path), canary)))
    await Promise.all(files.map((path) => rm(path)))
    if (forms.flat().length > 0) return leaks('the core file has the key')
    if (stage.level === 'bare') throw new Skipped('this kernel writes no core file')
    return files.length === 0 ? stops('no core file') : leaks('there is a core file')
  },
}

const CHILDLESS = { notApplicable: 'the enclave is in the host’s own process' }
/** A busy child of a host that is killed, as Node makes one. */
const PLAIN_PARENT = `
  const { pid } = require('node:child_process').spawn(process.execPath, ['--eval', 'for (;;);'], { stdio: 'ignore' })
  console.log(pid)
  setInterval(() => {}, 1000)`

const hostDeath: Attack = {
  name: 'host-death-kills-child',
  attacker: 'H3',
  tries:
    'SIGKILL to the host while its enclave’s process is busy: whoever comes later finds it alive. Bare: a plain child process',
  expected: { bare: 'leaks', worker: CHILDLESS, process: 'stops' },
  async run(stage) {
    needsLinux()
    let pid: number
    if (stage.level === 'bare') {
      const parent = spawn(process.execPath, ['--eval', PLAIN_PARENT], { stdio: ['ignore', 'pipe', 'inherit'] })
      const [line] = (await once(parent.stdout, 'data')) as [Buffer]
      pid = Number(String(line))
      parent.kill('SIGKILL')
    } else {
      const host = await stage.host({ stays: true, calls: ['spin'] })
      await host.ready()
      pid = holderOf(stage, host)
      host.process.kill('SIGKILL')
    }
    await sleep(1000)
    if (!existsSync(`/proc/${pid}`) || !isRunning(pid)) return stops('gone within a second')
    process.kill(pid, 'SIGKILL')
    return leaks('it outlives its host')
  },
}

export const PROCESS_ATTACKS: readonly Attack[] = [sigusr1, core, hostDeath]
