import { asciiBytes, equalPublicBytes } from '../../protocol/bytes.js'
import type { KmsLink } from '../../protocol/ports.js'
import { AttestedClient, newestKey, openByKms, sealToKms, type TestPlatform } from './attested-client.js'
import { IMAGE } from './in-process.js'

const PLAINTEXT = asciiBytes('what an honest enclave keeps')

/** Frames of an honest client, for others to send again; and whether all is afterwards as that client left it. */
export const fuzzableFrames = async (
  link: KmsLink,
  platform: TestPlatform,
): Promise<{ readonly frames: readonly Uint8Array[]; readonly isUnchanged: () => Promise<boolean> }> => {
  const frames: Uint8Array[] = []
  const kms = {
    exchange: (frame: Uint8Array) => {
      frames.push(Uint8Array.from(frame))
      return link.exchange(frame)
    },
  }
  const connect = (): Promise<AttestedClient> =>
    AttestedClient.connect({ kms, kmsIdentity: link.identity, platform, image: IMAGE })
  const client = await connect()
  const incarnation = await client.launch()
  const { encryptionKey } = newestKey(await client.open())
  const envelope = sealToKms(PLAINTEXT, { encryptionKey, origin: client.origin, image: IMAGE })
  await openByKms(client, envelope)
  return {
    frames: [...frames],
    async isUnchanged() {
      const next = await connect()
      const opened = await next.open()
      return opened.incarnation === incarnation && equalPublicBytes(await openByKms(next, envelope), PLAINTEXT)
    },
  }
}
