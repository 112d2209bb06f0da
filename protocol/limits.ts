/** Caps on what comes from the untrusted side, checked before anything is allocated for it. Units stand last in each name. */

/** One ECALL or OCALL message: several homomorphic ciphertexts of 131 KB fit. */
export const MESSAGE_SIZE_BYTES_MAX = 64 * 1024 * 1024
/** Nesting of a value in a message: data, not programs. */
export const VALUE_DEPTH_MAX = 32
/** Nodes of a value in a message (a Uint8Array is one). */
export const VALUE_NODE_COUNT_MAX = 1_000_000
export const CALLS_IN_FLIGHT_MAX = 1024
/** Ids of calls that are numbers lie below: 32 bits. */
export const CALL_ID_LIMIT = 0x1_0000_0000
/** What an author may declare at most; no limit at all is a declaration left out. */
export const OCALLS_PER_SECOND_MAX = 1_000_000
export const OCALL_DEADLINE_MS_MAX = 24 * 60 * 60 * 1000
/** How long an enclave waits for the next item that its host streams into an ECALL. */
export const ITEM_DEADLINE_MS = 300_000
/** How many items a receiver may let a sender have on their way at once; ours grant STREAM_WINDOW_COUNT. */
export const STREAM_CREDIT_MAX = 1024
export const STREAM_WINDOW_COUNT = 64
/** A sender has no more bytes on their way than these, or one item. A receiver measures by its own wire, hence the factor. */
export const STREAM_WINDOW_SIZE_BYTES = 1024 * 1024
export const STREAM_BUFFER_SIZE_BYTES_MAX = 4 * STREAM_WINDOW_SIZE_BYTES

/** An idempotency key: printable ASCII. */
export const IDEMPOTENCY_KEY_LENGTH_MAX = 128
/** Outcomes of keyed calls that a flow keeps, the newest; all of them are stored again with each keyed call, hence the bytes. */
export const CALL_RECORD_COUNT_MAX = 256
export const CALL_RECORDS_SIZE_BYTES_MAX = 4 * 1024 * 1024
/** A reply that is recorded, encoded. */
export const RECORDED_REPLY_SIZE_BYTES_MAX = 1024 * 1024
/** Checkpoints of one keyed call, and entries of which it keeps what they were before. */
export const RECORDED_CHECKPOINT_COUNT_MAX = 256

/** A header holds a few recipients; post-quantum stanzas take about 1.5 KB each. */
export const HEADER_SIZE_BYTES_MAX = 64 * 1024
export const STANZA_COUNT_MAX = 32
/** Files within files of one envelope. */
export const LAYER_COUNT_MAX = 8
/** age, "scrypt recipient stanza": N = 2^22 takes 4 GiB; higher is refused unread. */
export const SCRYPT_LOG_N_MAX = 22

export const ENTRY_COUNT_MAX = 100_000
export const CHECKPOINT_SIZE_BYTES_MAX = 1024 * 1024 * 1024
export const NAME_LENGTH_MAX = 256
/** Copies that a store may keep of everything. */
export const STORE_COPY_COUNT_MAX = 16

/** One frame to or from the KMS: 256 of the largest headers. */
export const KMS_FRAME_SIZE_BYTES_MAX = 20 * 1024 * 1024
export const KMS_ITEM_COUNT_MAX = 4096
/** Headers that a KMS reads in a store for one call: as many of the largest as a frame holds. */
export const STORED_HEADER_COUNT_MAX = 256
/** Streams that a session may have open at once; as many may be asked for in one call. */
export const STREAM_COUNT_MAX = 256
/** The plaintext of one stream. */
export const STREAM_SIZE_BYTES_MAX = 64 * 1024 * 1024 * 1024
/** One segment of a payload: 16 chunks of 64 KiB with their tags. */
export const SEALED_SEGMENT_SIZE_BYTES_MAX = 16 * (64 * 1024 + 16)
/** A segment as it is delivered: its digest, sealed, stands behind the chunks. */
export const DELIVERED_SEGMENT_SIZE_BYTES_MAX = SEALED_SEGMENT_SIZE_BYTES_MAX + 48
/** Of a KMS: a rotation a month for five years. Every session names them all. */
export const ROOT_KEY_COUNT_MAX = 64
/** Of a keyring, which remembers the destroyed ones by name. */
export const DESTROYED_KEY_COUNT_MAX = 256
export const ROSTER_VALUE_SIZE_BYTES_MAX = 1024
/** One of the KMS’s: digests and names, and perhaps a reason. */
export const RECEIPT_SIZE_BYTES_MAX = 8 * 1024
/** Who share a keyring’s passphrase. */
export const CUSTODIAN_COUNT_MAX = 32
/** An operator’s, in a receipt. */
export const REASON_LENGTH_MAX = 512
/** Images that a flow has had before the one that it has, as far as the ledger remembers. */
export const PREDECESSOR_COUNT_MAX = 16
export const ROSTER_MEMBER_COUNT_MAX = 256
/** Of one launch: it names a key and a few numbers. */
export const CONFIGURATION_SIZE_BYTES_MAX = 4096
export const IMAGE_SIZE_BYTES_MAX = 64 * 1024 * 1024
