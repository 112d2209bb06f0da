import { asciiBytes, concatBytes, type Bytes } from '../protocol/bytes.js'
import { x25519PublicKey } from '../protocol/crypto/curves.js'
import { nodeRandom } from '../protocol/crypto/primitives.js'
import { encodeX25519Identity, encodeX25519Recipient } from '../protocol/crypto/recipients.js'
import { Secret } from '../protocol/crypto/secret.js'
import { openOutput } from './output.js'
import { printOutcome, printResult } from './terminal.js'

export interface KeygenFlags {
  readonly suite: 'x25519' | 'mlkem768x25519'
  readonly out?: string
  readonly json?: boolean
}

const SECRET_MODE = 0o600
const KEY_SIZE = 32

/** The two forms of a new key; the identity is wiped by the caller. */
const makeKey = async (suite: KeygenFlags['suite']): Promise<{ identity: Bytes; recipient: string }> => {
  using secret = Secret.random(KEY_SIZE, nodeRandom)
  if (suite === 'x25519') {
    return { identity: encodeX25519Identity(secret), recipient: encodeX25519Recipient(x25519PublicKey(secret)) }
  }
  const { encodeHybridIdentity, encodeHybridRecipient, hybridPublicKey } = await import('../protocol/crypto/hybrid.js')
  return { identity: encodeHybridIdentity(secret), recipient: encodeHybridRecipient(hybridPublicKey(secret)) }
}

/** `keyrise envelope keygen`: a file as age-keygen writes it. @throws {KeyriseError} ERR_FILE_EXISTS, ERR_FILE_UNWRITABLE. */
export const keygenCommand = async ({ suite, out, json }: KeygenFlags): Promise<void> => {
  using output = openOutput({ path: out, isForced: false, mode: SECRET_MODE })
  const { identity, recipient } = await makeKey(suite)
  const created = new Date().toISOString().replace(/\.\d+Z$/, 'Z')
  const file = concatBytes(
    asciiBytes(`# created: ${created}\n# public key: ${recipient}\n`),
    identity,
    asciiBytes('\n'),
  )
  try {
    await output.write(file)
  } finally {
    identity.fill(0)
    file.fill(0)
  }
  output.commit({ isDurable: true })
  const result = { file: out ?? null, suite, recipient }
  if (!output.isStandard) printResult(json === true, result, [recipient])
  else if (json === true) printOutcome(true, result, true)
  else if (!output.isTerminal) process.stderr.write(`Public key: ${recipient}\n`)
}
