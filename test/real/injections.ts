import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { Skipped } from './disks.js'
import { resultOf, type Progress, type Result } from './kills.js'
import { Stage } from './stage.js'

/** One system call that fails, by strace: the n-th of its kind that the process makes. */
interface Injection {
  readonly victim: 'host' | 'KMS'
  readonly call: string
  readonly error: string
  readonly when: number
  /** What a round must fail with. */
  readonly codes: readonly string[]
}

const host = (call: string, error: string, code: string): Injection[] =>
  [1, 4].map((when) => ({ victim: 'host', call, error, when, codes: [code] }))
const kms = (call: string, error: string): Injection[] =>
  [2, 4].map((when) => ({
    victim: 'KMS',
    call,
    error,
    when,
    codes: ['ERR_KMS_FAILED', 'ERR_KMS_UNREACHABLE', 'ERR_STORE_FULL', 'ERR_STORE_IO'],
  }))

const INJECTIONS: readonly Injection[] = [
  ...host('pwrite64', 'ENOSPC', 'ERR_STORE_FULL'),
  ...host('pwrite64', 'EIO', 'ERR_STORE_IO'),
  ...host('fsync', 'EIO', 'ERR_STORE_IO'),
  ...host('rename', 'EIO', 'ERR_STORE_IO'),
  ...kms('pwrite64', 'ENOSPC'),
  ...kms('fsync', 'EIO'),
]

const straceOf = ({ call, error, when }: Injection): string[] => [
  'strace',
  ...['-f', '-qq', '-o', '/dev/null', '-e', `trace=${call}`, '-e', `inject=${call}:error=${error}:when=${when}`],
]

/** Each fails a round with its code, or none, and is never taken for success: a sound host then finds what was acknowledged. */
export const inject = async (progress: Progress): Promise<Result> => {
  await promisify(execFile)('strace', ['-qq', '-o', '/dev/null', 'true']).catch((error: unknown) => {
    throw new Skipped(`strace: ${error instanceof Error ? error.message : ''}`)
  })
  await using stage = await Stage.open()
  await stage.startKms()
  await stage.runHost({})
  const done: string[] = []
  for (const injection of INJECTIONS) {
    const { victim, call, error, when, codes } = injection
    const name = `${error} of ${call} ${when} of the ${victim}`
    const before = stage.witness.failures.length
    const wrapper = straceOf(injection)
    if (victim === 'KMS') {
      await stage.endKms('SIGKILL')
      await stage.startKms({ wrapper })
      await stage.runHost({ untilFailure: true }, {}, name)
      await stage.endKms('SIGKILL')
      await stage.startKms()
    } else await stage.runHost({ untilFailure: true }, { wrapper }, name)
    const failures = stage.witness.failures.slice(before)
    // A KMS’s failure may be one that an enclave asks about again.
    if (failures.length === 0 && victim === 'host') stage.witness.violations.push(`${name}: nothing failed`)
    for (const code of failures) if (!codes.includes(code)) stage.witness.violations.push(`${name}: ${code}`)
    await stage.runSound(`after ${name}`)
    done.push(`${done.length} ${name}`)
    progress(`${name}: ${failures.join() || 'asked again'}`)
  }
  return resultOf('system calls that fail (strace)', stage, done, INJECTIONS.length)
}
