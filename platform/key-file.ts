import { constants } from 'node:fs'
import { link, mkdir, open, unlink, type FileHandle } from 'node:fs/promises'
import { createPrivateKey, randomFillSync, randomUUID, type KeyObject } from 'node:crypto'
import { join } from 'node:path'
import { allocate, type Bytes } from '../protocol/bytes.js'
import { KeyriseError } from '../protocol/errors.js'

const NAME = 'platform.key'
const SEED_SIZE_BYTES = 32
/** RFC 8410 §7: a PKCS #8 Ed25519 private key up to its seed. */
const PKCS8_PREFIX = [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20]

/**
 * The platform's signing key, from `directory`, made there at the first opening. The file stands for the fuses of a real
 * processor, and is as good as the permissions of that directory.
 * @throws {KeyriseError} ERR_STORE_UNWRITABLE, ERR_STORE_IO, ERR_CONFIG_INVALID.
 */
export const openPlatformKey = async (directory: string): Promise<KeyObject> => {
  const seed = await fromSystem(async () => (await readSeed(directory)) ?? (await makeSeed(directory)))
  const pkcs8 = allocate(PKCS8_PREFIX.length + SEED_SIZE_BYTES)
  try {
    pkcs8.set(PKCS8_PREFIX)
    pkcs8.set(seed, PKCS8_PREFIX.length)
    return createPrivateKey({ key: Buffer.from(pkcs8.buffer), format: 'der', type: 'pkcs8' })
  } finally {
    seed.fill(0)
    pkcs8.fill(0)
  }
}

const fromSystem = async <T>(work: () => Promise<T>): Promise<T> => {
  try {
    return await work()
  } catch (error) {
    if (error instanceof KeyriseError) throw error
    const code = hasCode(error, 'EACCES', 'EPERM', 'EROFS', 'ENOTDIR', 'EEXIST')
      ? 'ERR_STORE_UNWRITABLE'
      : 'ERR_STORE_IO'
    throw new KeyriseError(code, { detail: 'the platform’s key file', cause: error })
  }
}

const hasCode = (error: unknown, ...codes: string[]): boolean =>
  error instanceof Error && 'code' in error && codes.includes(String(error.code))

const refuse = (detail: string): never => {
  throw new KeyriseError('ERR_CONFIG_INVALID', { detail })
}

const readSeed = async (directory: string): Promise<Bytes | undefined> => {
  let file: FileHandle
  try {
    file = await open(join(directory, NAME), constants.O_RDONLY | constants.O_NOFOLLOW)
  } catch (error) {
    if (hasCode(error, 'ENOENT')) return undefined
    if (hasCode(error, 'ELOOP')) return refuse(`${NAME} is a symbolic link`)
    throw error
  }
  try {
    const { size, mode } = await file.stat()
    if ((mode & 0o077) !== 0) refuse(`${NAME} may be read by other users: chmod 600`)
    if (size !== SEED_SIZE_BYTES) refuse(`${NAME} is damaged`)
    const seed = allocate(SEED_SIZE_BYTES)
    const { bytesRead } = await file.read(seed, 0, SEED_SIZE_BYTES, 0)
    return bytesRead === SEED_SIZE_BYTES ? seed : refuse(`${NAME} is damaged`)
  } finally {
    await file.close()
  }
}

/** Written and synced under another name, then linked: a crash leaves the whole key or none, and of two makers one wins. */
const makeSeed = async (directory: string): Promise<Bytes> => {
  await mkdir(directory, { recursive: true, mode: 0o700 })
  const temporary = join(directory, `${NAME}.${randomUUID()}.tmp`)
  const seed = randomFillSync(allocate(SEED_SIZE_BYTES))
  try {
    await withFile(temporary, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL, async (file) => {
      const { bytesWritten } = await file.write(seed)
      if (bytesWritten !== SEED_SIZE_BYTES) throw new KeyriseError('ERR_STORE_FULL')
      await file.sync()
    })
    await link(temporary, join(directory, NAME)).catch((error: unknown) => {
      if (!hasCode(error, 'EEXIST')) throw error
    })
    await withFile(directory, constants.O_RDONLY, (file) => file.sync())
  } finally {
    seed.fill(0)
    await unlink(temporary).catch(() => {})
  }
  return (await readSeed(directory)) ?? refuse(`${NAME} disappeared`)
}

const withFile = async (path: string, flags: number, use: (file: FileHandle) => Promise<void>): Promise<void> => {
  const file = await open(path, flags, 0o600)
  try {
    await use(file)
  } finally {
    await file.close()
  }
}
