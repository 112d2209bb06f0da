import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { leaks, stops, STOPPED, type Attack, type Finding } from '../attack.js'
import { formsIn, formsInFiles } from '../canary.js'
import { ThreadHandles } from '../thread-handles.js'
import { CANARY_FILE, GONE, TELL, type HostOptions, type Stage } from '../stage.js'

/** Diagnostics that Node or V8 write by themselves when their flags say so: to files, and to the output. */

/** Runs a host to its end, and searches what it wrote and printed. */
const searchAfter = async (stage: Stage, options: HostOptions): Promise<Finding> => {
  const host = await stage.host(options)
  await host.exited
  const canary = await host.canary()
  const inFiles = await formsInFiles(host.directory, canary, [CANARY_FILE])
  if (inFiles.length > 0) return leaks(`a file has the key as ${inFiles.join(', ')}`)
  const printed = formsIn(host.output(), canary)
  return printed.length > 0
    ? leaks(`the output has the key as ${printed.join(', ')}`)
    : stops('no form of the key is written')
}

const rejectionSilentExit: Attack = {
  name: 'rejection-silent-exit',
  attacker: 'H1',
  tries: 'what is printed when an error, or a rejection, that nobody handles has the key in its text',
  expected: STOPPED,
  async run(stage) {
    for (const name of ['throwLater', 'rejectLater']) {
      const host = await stage.host({ calls: [TELL, name, GONE] })
      await host.exited
      if (formsIn(host.output(), await host.canary()).length > 0) return leaks('the error is printed, text and all')
      if (host.output() !== '') return leaks('something is printed')
    }
    return stops('nothing is printed')
  },
}

const printSilent: Attack = {
  name: 'print-silent',
  attacker: 'H1',
  tries:
    'what the enclave prints, by `console`, by its streams, as warnings and to open files: on the host’s output, and in the streams of the Worker, which Node hands out',
  expected: STOPPED,
  async run(stage) {
    const host = await stage.host({ calls: ['print', TELL] })
    await host.exited
    const printed = formsIn(host.output(), await host.canary())
    if (printed.length > 0 || host.output() !== '') return leaks('it is printed by the host')
    const handles = new ThreadHandles()
    handles.watch()
    const victim = await stage.launch()
    const workers = await handles.workers()
    if (stage.level === 'worker' && workers.length === 0) throw new Error('There is no Worker whose output to read')
    await victim.call('print')
    const read = workers.map(({ stdout, stderr }) => [String(stdout.read() ?? ''), String(stderr.read() ?? '')])
    return read.flat().join('') === '' ? stops('nothing is printed') : leaks('a stream of the Worker has it')
  },
}

const coverage: Attack = {
  name: 'coverage-env-none',
  attacker: 'H2',
  tries: 'NODE_V8_COVERAGE, which counts every branch that was taken, in code that works with the key too',
  expected: STOPPED,
  async run(stage) {
    const directory = join(stage.directory, 'coverage')
    const host = await stage.host({ env: { NODE_V8_COVERAGE: directory }, calls: ['surroundings', TELL] })
    await host.exited
    const inherited = (await host.answer('surroundings')) as string[]
    if (stage.level !== 'bare' && inherited.length > 0) return leaks('the enclave has the host’s environment')
    const threads = (await readdir(directory)).filter((name) => name.startsWith('coverage-'))
    for (const name of threads) {
      const { result } = JSON.parse(await readFile(join(directory, name), 'utf8')) as { result: { url: string }[] }
      if (result.some(({ url }) => url.endsWith('/keeper.js')))
        return leaks('the branches of the keeper’s code are counted')
    }
    return threads.length === 1 ? stops('only the host’s own code is counted') : leaks('another thread is counted')
  },
}

const nearHeapLimit: Attack = {
  name: 'near-heap-limit-none',
  attacker: 'H2',
  tries: '`--heapsnapshot-near-heap-limit`, then a call that runs out of memory',
  expected: STOPPED,
  run: (stage) =>
    searchAfter(stage, {
      flags: ['--heapsnapshot-near-heap-limit=1', '--max-old-space-size=128'],
      calls: [TELL, 'hoard', GONE],
    }),
}

const report: Attack = {
  name: 'report-no-key',
  attacker: 'H2',
  tries: '`--report-uncaught-exception`, then an error that nobody handles, with the key in its text',
  expected: STOPPED,
  run: (stage) =>
    searchAfter(stage, {
      flags: ['--report-uncaught-exception', '--report-on-fatalerror', `--report-directory=${stage.directory}`],
      calls: [TELL, 'throwLater', GONE],
    }).then(async (finding) => {
      const reports = (await readdir(stage.directory)).filter((name) => name.startsWith('report.'))
      return reports.length > 0 ? leaks('a report has the error, text and all') : finding
    }),
}

const traceFlag: Attack = {
  name: 'trace-flag-no-key',
  attacker: 'H2',
  tries: 'V8’s `--trace`, which prints every call with its arguments, in all threads',
  expected: STOPPED,
  // Into a file: lines through a pipe are torn where threads write at the same time.
  run: (stage) => searchAfter(stage, { flags: ['--trace'], prelude: 'exec >trace.txt 2>&1' }),
}

export const FLAG_ATTACKS: readonly Attack[] = [
  rejectionSilentExit,
  printSilent,
  coverage,
  nearHeapLimit,
  report,
  traceFlag,
]
