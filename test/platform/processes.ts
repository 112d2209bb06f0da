import { readdirSync, readFileSync } from 'node:fs'

export interface RunningProcess {
  readonly pid: number
  readonly commandLine: readonly string[]
}

/** The processes that `parent` has started, as Linux lists them. */
export const childrenOf = (parent: number): RunningProcess[] =>
  readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .flatMap((name) => {
      try {
        // proc(5), /proc/pid/stat: the name, in brackets, may hold anything; then state and parent.
        const [, ppid] = readFileSync(`/proc/${name}/stat`, 'utf8')
          .replace(/^.*\) /s, '')
          .split(' ')
        if (Number(ppid) !== parent) return []
        return [
          { pid: Number(name), commandLine: readFileSync(`/proc/${name}/cmdline`, 'utf8').split('\0').slice(0, -1) },
        ]
      } catch {
        // It ended meanwhile.
        return []
      }
    })

export const isRunning = (pid: number): boolean => {
  try {
    // One that ended and was not waited for yet is not running.
    return !/^\d+ \(.*\) [ZX] /s.test(readFileSync(`/proc/${String(pid)}/stat`, 'utf8'))
  } catch {
    return false
  }
}
