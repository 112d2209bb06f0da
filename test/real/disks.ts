import { execFile } from 'node:child_process'
import { mkdir, open, readFile, rm, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { resultOf, spread, type Progress, type Result } from './kills.js'
import { Stage, type Disk } from './stage.js'

const run = promisify(execFile)

/** Why something cannot be tried on this machine. */
export class Skipped extends Error {}

const orSkip = async (command: string, ...operands: string[]): Promise<void> => {
  try {
    await run(command, operands)
  } catch (error) {
    throw new Skipped(
      `${command}: ${error instanceof Error ? (error.message.split('\n').at(-2) ?? error.message) : ''}`,
    )
  }
}

const unmount = async (path: string): Promise<void> => {
  await run('umount', [path])
}

interface MountedDisk extends Disk {
  /** Loses what no fsync has made durable, as a power cut does. */
  readonly cut: () => Promise<void>
}

/** FS_IOC_SHUTDOWN with NOLOGFLUSH: from then on nothing reaches the disk, the journal’s buffers included. */
const SHUTDOWN = 'open(my $d, "<", $ARGV[0]) or die $!; my $how = pack("L", 2); ioctl($d, 0x8004587D, $how) or die $!'

const IMAGE_SIZE_BYTES = { ext4: 64 * 1024 ** 2, xfs: 320 * 1024 ** 2 }
export type Journaled = keyof typeof IMAGE_SIZE_BYTES

/** A file system of its own in a file, on a loop device. @throws {Skipped} without root, a loop device or its mkfs. */
const mountLoop = async (base: string, type: Journaled): Promise<MountedDisk> => {
  const [image, path] = [join(base, 'disk.img'), join(base, 'disk')]
  await mkdir(path)
  await writeFile(image, '')
  await truncate(image, IMAGE_SIZE_BYTES[type])
  await orSkip(`mkfs.${type}`, '-q', image)
  await orSkip('mount', '-t', type, '-o', 'loop', image, path)
  const release = (): Promise<void> => unmount(path)
  const cut = async (): Promise<void> => {
    await run('perl', ['-e', SHUTDOWN, path])
    await unmount(path)
    await run('mount', ['-t', type, '-o', 'loop', image, path])
  }
  try {
    await proveCut(path, cut)
  } catch (error) {
    await release()
    throw error
  }
  return { path, release, cut }
}

/** A cut that loses nothing proves nothing. @throws {Skipped} where what was never synced is there after it. */
const proveCut = async (path: string, cut: () => Promise<void>): Promise<void> => {
  const synced = await open(join(path, 'synced'), 'w')
  await synced.writeFile('kept')
  await synced.sync()
  await synced.close()
  await writeFile(join(path, 'unsynced'), 'lost')
  await cut().catch((error: unknown) => {
    throw new Skipped(`FS_IOC_SHUTDOWN: ${String(error)}`)
  })
  const unsynced = await readFile(join(path, 'unsynced'), 'utf8').catch(() => '')
  if (unsynced !== '') throw new Skipped('a file that was never synced survives a cut')
  if ((await readFile(join(path, 'synced'), 'utf8').catch(() => '')) !== 'kept') throw new Error('fsync keeps nothing')
}

/** The machine of host and KMS loses its power at moments of the host: both are gone, and so is what was not synced. */
export const cutPower = async (type: Journaled, count: number, progress: Progress): Promise<Result> => {
  let disk: MountedDisk | undefined
  await using stage = await Stage.open(async (base) => (disk = await mountLoop(base, type)))
  await stage.startKms()
  await stage.runHost({})
  const { count: total = 0 } = await stage.runHost({})
  const moments: string[] = []
  for (const killAt of spread(count, total)) {
    const { moment } = await stage.runHost({}, { killAt }, `power cut at ${killAt}`)
    await stage.endKms('SIGKILL')
    await disk?.cut()
    await stage.startKms()
    if (moment !== undefined) moments.push(moment)
    progress(`power cut on ${type} ${moments.length}/${count}: ${moment ?? 'the host had ended'}`)
  }
  await stage.runSound('the last host')
  return resultOf(`power cuts on ${type}`, stage, moments, total)
}

const TMPFS_SIZE = '1m'

const mountSmall = async (base: string): Promise<Disk> => {
  const path = join(base, 'disk')
  await mkdir(path)
  await orSkip('mount', '-t', 'tmpfs', '-o', `size=${TMPFS_SIZE}`, 'none', path)
  return { path, release: () => unmount(path) }
}

/** Takes what is left of a disk, but for `left`. */
const fill = async (path: string, left: number): Promise<void> => {
  const file = await open(path, 'w')
  let size = 0
  try {
    for (;;) size += (await file.write(new Uint8Array(4096))).bytesWritten
  } catch {
    await file.truncate(Math.max(0, size - left))
  } finally {
    await file.close()
  }
}

/** A disk that fills up under a host and its KMS, and has space again: nothing is lost, and both go on as they are. */
export const fillDisk = async (): Promise<Result> => {
  await using stage = await Stage.open(mountSmall)
  await stage.startKms()
  await stage.runHost({})
  const filler = join(stage.disk, 'filler')
  // Less than a round takes, and more than a recovery.
  await fill(filler, 28_000)
  let freed: Promise<void> | undefined
  let roundCount = 0
  const host = stage.startHost({ roundCount: 1000, sizeBytes: 20_000 }, {}, 'full disk', (said) => {
    if ('failed' in said) freed ??= rm(filler)
    if (freed !== undefined && 'acknowledged' in said && ++roundCount === 3) host.stop()
  })
  const { status } = await host.ended
  await freed
  const { witness } = stage
  if (status !== 'exit 0 ') witness.violations.push(`the host: ${status}`)
  if (!witness.failures.includes('ERR_STORE_FULL'))
    witness.violations.push(`no ERR_STORE_FULL: ${witness.failures.join()}`)
  if (roundCount < 3) witness.violations.push('nothing was written once there was space again')
  await stage.runSound('the last host')
  return resultOf(
    'a full disk (tmpfs)',
    stage,
    witness.failures.map((code) => `0 ${code}`),
    1,
  )
}
