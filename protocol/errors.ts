/**
 * Every way Keyrise can refuse, fail or be refused. A code is stable; its text says what happened, its `remedy` what to do.
 * Codes marked `outside` may cross a trust boundary; the others exist inside trusted code and the local command line only
 * and leave as ERR_ENVELOPE_INVALID (envelopes) or ERR_ENCLAVE_FAILED (the rest).
 */
const ERRORS = {
  // The boundary
  ERR_ECALL_UNKNOWN: ['No such ECALL is declared', 'Call one that the image declares'],
  ERR_MESSAGE_INVALID: [
    'The message is not a call that the gate admits',
    'Use the stubs of launch(), or Comlink.wrap with plain calls',
  ],
  ERR_ARGUMENT_INVALID: ['The argument does not match the declared schema', 'Compare it with the ECALL’s input schema'],
  ERR_REPLY_INVALID: ['The reply does not match the declared schema', 'Compare it with the declared output schema'],
  ERR_SIZE_LIMIT: [
    'A declared size limit is exceeded',
    'Send less at once, or raise the limit in the enclave’s definition',
  ],
  ERR_SHARED_MEMORY: ['Shared memory cannot cross the boundary', 'Pass a Uint8Array with an ArrayBuffer of its own'],
  ERR_VALUE_UNSUPPORTED: [
    'A value of this type cannot cross the boundary',
    'Pass null, booleans, finite numbers, strings, Uint8Arrays, arrays and plain objects',
  ],
  ERR_SWITCHLESS: [
    'This ECALL cannot be called synchronously',
    'Declare it switchless, and let its schemas and handler answer at once; or call it through `ecalls`',
  ],
  ERR_CALLS_LIMIT: ['Too many calls are in flight', 'Wait for earlier calls to settle'],
  ERR_IDEMPOTENCY_CONFLICT: [
    'Another call has this idempotency key',
    'Repeat a call with the input that it had, or choose a key of its own for each effect',
  ],
  ERR_CANCELLED: ['The caller gave the call up', 'Let the handler end: nobody waits for its answer'],
  ERR_RATE_LIMIT: [
    'The OCALL is made more often than its declaration allows',
    'Wait, or raise `perSecondMax` in the enclave’s definition',
  ],
  ERR_OCALL_UNKNOWN: ['The host does not implement this OCALL', 'Pass it to launch({ ocalls })'],
  ERR_OCALL_FAILED: ['The host failed to answer an OCALL', 'See the host’s log; the enclave’s state is unchanged'],
  ERR_APPLICATION: ['The enclave refused the call', 'See `reason`, one of those the image declares'],
  ERR_ENCLAVE_FAILED: ['The enclave’s code failed', 'Run the module in the test kit to see why; nothing was committed'],
  ERR_ENCLAVE_LOST: [
    'The enclave died with this call in flight; its outcome is unknown',
    'Repeat the call if it is safe to repeat',
  ],
  ERR_ENCLAVE_CLOSED: ['The enclave was closed', 'Launch it again'],
  ERR_LAUNCH_FAILED: ['The enclave did not start', 'See `cause`'],
  ERR_ISOLATION_UNAVAILABLE: [
    'This level of isolation is not available here',
    'Supply what the message names, or launch with another `isolation`',
  ],
  ERR_DEADLINE: [
    'No answer came before the deadline; the outcome is unknown',
    'Repeat the call if it is safe to repeat',
  ],
  // Images
  ERR_IMAGE_BUILD: ['The enclave module cannot be bundled', 'See the bundler’s messages'],
  ERR_IMAGE_TOP_LEVEL_AWAIT: [
    'An enclave module cannot use top-level await',
    'Move the await into an ECALL or a function that one calls',
  ],
  ERR_IMAGE_INVALID: ['This is not an enclave image', 'Build one with `keyrise image build`'],
  ERR_IMAGE_SIGNATURE: [
    'The image’s signature is not valid',
    'Sign the image again with `keyrise image sign`; without its signature file it runs as unsigned',
  ],
  // Names and values
  ERR_NAME_INVALID: ['The name is not allowed', 'Use the letters, digits and signs that docs/envelope.md lists'],
  ERR_CBOR_INVALID: ['The bytes are not the deterministic CBOR expected here', 'Treat the bytes as damaged or hostile'],
  // Envelopes
  ERR_ENVELOPE_INVALID: [
    'The envelope cannot be opened',
    'It is damaged, forged, meant for another key, or served in another’s place',
  ],
  ERR_ARMOR_INVALID: ['This is not the ASCII armor of an age file', 'Treat the file as damaged or hostile'],
  ERR_HEADER_MALFORMED: ['The envelope’s header is malformed', 'Treat the file as damaged or hostile'],
  ERR_HEADER_LIMIT: ['The envelope’s header exceeds a limit', 'Treat the file as hostile'],
  ERR_HEADER_MAC: ['The envelope’s header was changed', 'Treat the file as damaged or hostile'],
  ERR_IDENTITY_MISMATCH: ['No key given opens this envelope', 'Supply the key of one of its recipients'],
  ERR_PAYLOAD_INVALID: ['The envelope’s payload is damaged', 'Take another copy'],
  ERR_PAYLOAD_TRUNCATED: ['The envelope’s payload is cut short', 'Take another copy'],
  ERR_WORK_FACTOR: ['The passphrase work factor is not allowed', 'Treat the file as hostile'],
  ERR_CONTEXT_MISMATCH: [
    'The envelope belongs to another flow, kind, name or epoch',
    'The store serves the wrong file',
  ],
  ERR_ORIGIN_INVALID: ['The envelope was not made by an enclave of this flow and identity', 'Treat the file as forged'],
  ERR_DIGEST_MISMATCH: ['The bytes are not those that the epoch lists', 'Take another copy'],
  // Stores
  ERR_STORE_UNWRITABLE: [
    'The store cannot be written',
    'Check that the directory exists and that this user may write to it',
  ],
  ERR_STORE_FULL: ['The store is full', 'Free some space and repeat; the old state is intact'],
  ERR_STORE_IO: ['The store failed', 'Check the device; nothing unacknowledged is lost'],
  ERR_STORE_UNKNOWN: [
    'The KMS has no store of this id',
    'Have its operator register the store, or launch without `kmsStore`',
  ],
  ERR_STORE_CONFLICT: ['The name holds other bytes already', 'Names are immutable: choose another'],
  // Freshness and recovery
  ERR_ROLLBACK: ['The store holds an older state than the ledger’s', 'Restore the newest copy of the store'],
  ERR_FORK: [
    'The store holds a state that this flow never had',
    'Restore the store from a copy that has the ledger’s epoch',
  ],
  ERR_LEDGER_ROLLED_BACK: [
    'The KMS’s ledger is older than what it has acknowledged: it was rolled back or lost',
    'Restore the newest copy of the KMS’s directory; where there is none, run `keyrise kms accept-stale`',
  ],
  ERR_STATE_LOST: ['State that the ledger knows is missing from the store', 'Restore the store from a mirror'],
  ERR_FENCED: ['A newer instance of this flow has taken over', 'Use the newer instance'],
  ERR_LEDGER_CONFLICT: [
    'Another instance recovered this flow at the same moment',
    'Use that instance, or launch again',
  ],
  ERR_FLOW_DESTROYED: ['The flow was destroyed', 'Start a flow of another name'],
  ERR_ENTRY_MISSING: ['The flow has no entry of this name', 'See flow.list()'],
  // Platform and KMS
  ERR_KMS_UNREACHABLE: ['The KMS does not answer', 'Start it with `keyrise kms serve`, or check the address'],
  ERR_KMS_UNTRUSTED: [
    'The KMS did not prove the identity that this launch trusts',
    'Check the address and the identity’s fingerprint',
  ],
  ERR_KMS_FAILED: ['The KMS failed to answer', 'See the KMS’s log'],
  ERR_KMS_SEALED: [
    'The KMS is sealed: its keyring is closed',
    'Give it its passphrase with `keyrise kms unlock`, and repeat',
  ],
  ERR_KMS_UNLOCKED: ['The KMS is unlocked already', 'Nothing is to be done; `keyrise kms seal` closes its keyring'],
  ERR_SESSION_INVALID: ['The session with the KMS is not valid', 'A new session is opened by itself; repeat the call'],
  ERR_EVIDENCE_REFUSED: ['The KMS refused the evidence', 'Check that the policy lists this platform'],
  ERR_POLICY_DENIED: [
    'The policy does not allow this',
    '`keyrise policy check` says why; another image takes a flow over as a later version of its product, or under a migration grant',
  ],
  ERR_APPROVAL_NEEDED: [
    'Approvers must sign this first',
    'Have as many approvers as the policy asks for sign it with `keyrise policy approve`, and hand in what they signed (docs/policy.md)',
  ],
  ERR_REQUEST_INVALID: ['The request is malformed', 'Use a client of the same version'],
  ERR_KEY_INVALID: ['This is not a public key that can be used', 'Treat it as damaged or hostile'],
  ERR_KEY_UNKNOWN: ['The KMS has no such key version', 'Restore the keyring that holds it'],
  ERR_ROSTER_INVALID: [
    'The roster of the task is not signed by the KMS, or names another key',
    'Treat the peer as an impostor',
  ],
  ERR_LEDGER_DAMAGED: ['The ledger is damaged', 'Restore the KMS from a backup'],
  ERR_LEDGER_TAKEN: [
    'Another process has taken the ledger',
    'Nothing is lost: start the KMS again, once a command that works on its files is done',
  ],
  ERR_LEDGER_MISSING: [
    'There is no ledger in this directory',
    'Check --directory; restore the KMS’s directory from a backup; where it is lost for good, begin a new one with `keyrise kms restore --new-ledger`',
  ],
  ERR_PASSPHRASE_WRONG: ['The passphrase does not open the keyring', 'Type it again; the file is untouched'],
  ERR_PASSPHRASE_THROTTLED: [
    'Too many wrong passphrases were tried',
    'Wait as long as the message says; the right one opens the keyring then, and ends the waiting',
  ],
  ERR_TOKEN_WRONG: [
    'The request does not show the token of the admin surface',
    'Send `authorization: Bearer` with what the file of --admin-token-file holds',
  ],
  ERR_SHARE_INVALID: [
    'The share is not one of this keyring’s',
    'Let the custodian look at it again; the shares that were right are kept',
  ],
  ERR_CUSTODIANS_INVALID: [
    'The file that says who the custodians are is missing or damaged',
    'Restore it from a backup, or give the passphrase that the shares make',
  ],
  ERR_KEYRING_MISSING: [
    'There is no keyring here',
    'Say where it is with --custody, restore it from there, or run `keyrise kms init` in an empty place',
  ],
  ERR_KEYRING_EXISTS: ['A keyring exists here already', 'Choose another place; a keyring is never overwritten by init'],
  ERR_KEYRING_INVALID: ['The keyring is damaged or of an unknown version', 'Restore it from custody'],
  ERR_KEYRING_NEWER: [
    'The keyring was written by a newer version of Keyrise',
    'Use that version: this one could not keep what it does not know',
  ],
  ERR_KEY_STATE: [
    'The state of the root key does not allow this',
    'See `keyrise kms keys`; the newest version of a key stays enabled until it is rotated',
  ],
  ERR_BACKUP_INVALID: ['The backup is damaged, forged or of a later version', 'Take another copy, or an older backup'],
  ERR_DOWNGRADE: [
    'What is here is newer than what would take its place',
    'Restore a newer backup, or into an empty place; where what is newer may be lost for good, give --allow-downgrade',
  ],
  ERR_NOT_CONFIRMED: ['It was not confirmed, and nothing was changed', 'Look at what is shown, and confirm it'],
  ERR_PORT_IN_USE: ['The port is in use', 'Stop the other process, or choose another with --port'],
  ERR_ADDRESS_REFUSED: ['This address is not allowed', 'Without TLS the KMS listens on loopback only'],
  ERR_CONFIG_INVALID: ['The configuration is not valid', 'Correct what the message names'],
  // Files of the command
  ERR_FILE_EXISTS: [
    'The file exists already',
    'Choose another name, or move it away; some commands take --force to replace it',
  ],
  ERR_FILE_UNREADABLE: ['The file cannot be read', 'Check that it exists and that this user may read it'],
  ERR_FILE_UNWRITABLE: [
    'The file cannot be written',
    'Check that its directory exists, has space, and that this user may write to it',
  ],
} as const satisfies Record<string, readonly [text: string, remedy: string]>

export type ErrorCode = keyof typeof ERRORS

export const ERROR_CODES = Object.keys(ERRORS) as readonly ErrorCode[]

/** The one error class. `message` is fixed text plus, at most, public detail: never a secret, never a caller's bytes. */
export class KeyriseError extends Error {
  override readonly name = 'KeyriseError'
  readonly code: ErrorCode
  /** What to do about it, one sentence. */
  readonly remedy: string
  /** What `message` adds to the fixed text. */
  readonly detail: string | undefined
  /** For ERR_APPLICATION: which of the refusals that the image declares. */
  readonly reason: string | undefined

  constructor(code: ErrorCode, options: { detail?: string; reason?: string; cause?: unknown } = {}) {
    const [text, remedy] = ERRORS[code]
    const detail = options.detail ?? options.reason
    super(detail === undefined ? text : `${text}: ${detail}`, 'cause' in options ? { cause: options.cause } : undefined)
    this.code = code
    this.remedy = remedy
    this.detail = detail
    this.reason = options.reason
  }
}

/** True when `error` is a KeyriseError, of one of `codes` where any are named. Safe on hostile values. */
export const isKeyriseError = (error: unknown, ...codes: ErrorCode[]): error is KeyriseError =>
  error instanceof KeyriseError && (codes.length === 0 || codes.includes(error.code))

/** True for text that is one of our codes: what a peer claims as a code is checked with this before it is used. */
export const isErrorCode = (claimed: unknown): claimed is ErrorCode =>
  typeof claimed === 'string' && Object.hasOwn(ERRORS, claimed)

const ENVELOPE_CODES: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  'ERR_ARMOR_INVALID',
  'ERR_HEADER_MALFORMED',
  'ERR_HEADER_LIMIT',
  'ERR_HEADER_MAC',
  'ERR_IDENTITY_MISMATCH',
  'ERR_PAYLOAD_INVALID',
  'ERR_PAYLOAD_TRUNCATED',
  'ERR_WORK_FACTOR',
  'ERR_CBOR_INVALID',
  'ERR_ORIGIN_INVALID',
])

/** Why an envelope did not open stays inside: an attacker who learns the reason has an oracle. Other codes pass unchanged. */
export const outsideCode = (code: ErrorCode): ErrorCode => (ENVELOPE_CODES.has(code) ? 'ERR_ENVELOPE_INVALID' : code)

/** Text and remedy of a code, for documentation and the command line. */
export const describeError = (code: ErrorCode): { text: string; remedy: string } => ({
  text: ERRORS[code][0],
  remedy: ERRORS[code][1],
})
