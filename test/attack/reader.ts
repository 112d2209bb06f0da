import { dumpMemory } from './memory-dump.js'

/** Another process, by whichever user it was started: reads a process’s memory into a file. */
const [pid, path = ''] = process.argv.slice(2)
try {
  dumpMemory(Number(pid), path)
} catch {
  process.exit(1)
}
