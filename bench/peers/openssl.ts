import { execFile } from 'node:child_process'
import { promisify } from 'node:util'

/** The machine’s `openssl speed`: what its processor can do, in a second of wall time, as ours is measured. */

const speed = async (args: readonly string[], pattern: RegExp): Promise<number> => {
  const { stdout } = await promisify(execFile)('openssl', ['speed', '-mr', '-elapsed', '-seconds', '1', ...args])
  // Of several processes, the last line is the sum.
  const figure = [...stdout.matchAll(pattern)].at(-1)?.[1]
  if (figure === undefined) throw new Error(`openssl speed ${args.join(' ')} printed no figure`)
  return Number(figure)
}

/** `openssl speed -multi 2 -evp chacha20-poly1305 -bytes 65536`, in MB/s: it seals. */
export const chachaSpeed = async (processCount: number): Promise<number> => {
  const flags = ['-multi', String(processCount), '-evp', 'chacha20-poly1305', '-bytes', '65536']
  return (await speed(flags, /^\+F:\d+:ChaCha20-Poly1305:([\d.]+)$/gim)) / 1e6
}

/** `openssl speed ecdhx25519` on one core: agreements a second. */
export const agreementSpeed = (): Promise<number> => speed(['ecdhx25519'], /^\+F5:\d+:253:([\d.]+)/gm)
