import { parseHeader } from '../../protocol/age-header.js'
import { allocate, type Bytes } from '../../protocol/bytes.js'
import { decodeKmsReply, encodeKmsRequest } from '../../protocol/kms.js'
import type { KmsChannel } from '../../protocol/ports.js'
import type { StreamItem, StreamStatus } from '../../protocol/session.js'
import { openDelivery, segmentAt, segmentCount } from '../../protocol/crypto/delivery.js'
import { PAYLOAD_NONCE_SIZE, SEALED_SEGMENT_SIZE } from '../../protocol/crypto/payload.js'
import type { AttestedClient } from './attested-client.js'

/** An envelope as a store keeps it, and what an enclave asks to have it streamed. */
export const storedPayload = (envelope: Bytes, sizeBytes: number) => {
  const { sizeBytes: headerSize } = parseHeader(envelope)
  const chunks = envelope.slice(headerSize + PAYLOAD_NONCE_SIZE)
  const item: StreamItem = {
    header: envelope.slice(0, headerSize),
    nonce: envelope.slice(headerSize, headerSize + PAYLOAD_NONCE_SIZE),
    sizeBytes,
  }
  const segment = (index: number): Bytes => chunks.slice(index * SEALED_SEGMENT_SIZE, (index + 1) * SEALED_SEGMENT_SIZE)
  return { item, segment }
}

/** A stream as the enclave that opened it sees it. */
export interface OpenedStream {
  readonly id: Bytes
  readonly key: Bytes
  readonly sizeBytes: number
}

/** Opens streams; undefined for each item that did not open. */
export const openStreams = async (
  client: AttestedClient,
  items: readonly StreamItem[],
  done: readonly Bytes[] = [],
): Promise<{ streams: (OpenedStream | undefined)[]; statuses: readonly StreamStatus[] }> => {
  const { reply, secrets } = await client.call({ op: 'stream', items, done })
  let offset = 0
  const streams = reply.items.map(({ stream }, index) => {
    const sizeBytes = items[index]?.sizeBytes ?? 0
    return stream === null ? undefined : { id: stream, key: secrets.slice(offset, (offset += 32)), sizeBytes }
  })
  return { streams, statuses: reply.items }
}

export const openStream = async (client: AttestedClient, item: StreamItem): Promise<OpenedStream> => {
  const { streams } = await openStreams(client, [item])
  if (streams[0] === undefined) throw new Error('it did not open')
  return streams[0]
}

/** What a host does: the answer is not read. @throws {KeyriseError} what the KMS names. */
export const askSegment = async (kms: KmsChannel, stream: Bytes, index: number, sealed: Bytes): Promise<Bytes> =>
  decodeKmsReply('segment', await kms.exchange(encodeKmsRequest({ op: 'segment', stream, index, sealed }))).sealed

/** What an enclave does with the answer: the digest of the segment as it is stored, and its plaintext. */
export const openDelivered = ({ key, sizeBytes }: OpenedStream, index: number, delivered: Uint8Array) => {
  const segment = segmentAt(sizeBytes, index)
  const plaintext = allocate(segment.sizeBytes)
  const digest = openDelivery(key, segment, delivered, plaintext)
  return digest === undefined ? undefined : { digest, plaintext }
}

/** A whole payload, one segment after the other. */
export const readStream = async (
  kms: KmsChannel,
  stream: OpenedStream,
  segment: (index: number) => Bytes,
): Promise<Bytes> => {
  const whole = allocate(stream.sizeBytes)
  for (let index = 0, offset = 0; index < segmentCount(stream.sizeBytes); index++) {
    const opened = openDelivered(stream, index, await askSegment(kms, stream.id, index, segment(index)))
    if (opened === undefined) throw new Error(`segment ${index}`)
    whole.set(opened.plaintext, offset)
    offset += opened.plaintext.length
  }
  return whole
}
