import type { OpenedFlow } from '../../enclave/flow.js'
import type { BulkItem } from '../../enclave/index.js'
import { allocate, type Bytes } from '../../protocol/bytes.js'
import { decodeKmsRequest, type KmsRequest } from '../../protocol/kms.js'
import type { EntryName } from '../../protocol/names.js'
import type { KmsChannel, SegmentChannel, SegmentRequest } from '../../protocol/ports.js'
import { FLOW, startWorld, type LaunchOptions } from './flow-world.js'

export const MIB = 1024 * 1024

/** Bytes that differ from one entry to another and from one place to another. */
export const patterned = (entry: number, size: number): Bytes => {
  const bytes = allocate(size)
  for (let index = 0; index < size; index++) bytes[index] = (index * 31 + (index >>> 10) * 7 + entry * 101 + 1) & 0xff
  return bytes
}

/** ava compares megabytes one by one, and slowly. */
export const isSame = (a: Uint8Array | undefined, b: Uint8Array): boolean =>
  a !== undefined && Buffer.compare(a, b) === 0
/** True for the n-th entry as it was written. */
export const isEntry = (item: BulkItem | undefined, n: number, size: number): boolean =>
  item !== undefined && 'bytes' in item && isSame(item.bytes, patterned(n, size))

export const turns = async (count: number): Promise<void> => {
  for (let turn = 0; turn < count; turn++) await new Promise((resolve) => setImmediate(resolve))
}

/** A world whose flow has entries sealed straight to the KMS, with a look at every frame and segment. */
export const startBulkWorld = async () => {
  const world = await startWorld()
  const frames: { readonly op: KmsRequest['op']; readonly sizeBytes: number }[] = []
  const seen = {
    inFlight: 0,
    segmentCount: 0,
    /** Called when a segment has come. */
    onSegment: (_request: SegmentRequest): void | Promise<void> => undefined,
    /** The KMS that the enclave reaches: another one after a restart. */
    kms: world.kms.service as KmsChannel,
  }
  const kms: KmsChannel = {
    exchange: (frame) => {
      frames.push({ op: decodeKmsRequest(frame).op, sizeBytes: frame.length })
      return seen.kms.exchange(frame)
    },
  }
  const watched = (right: SegmentChannel): SegmentChannel => ({
    exchange: async (request) => {
      seen.segmentCount++
      seen.inFlight++
      try {
        const delivered = await right.exchange(request)
        await seen.onSegment(request)
        return delivered
      } finally {
        seen.inFlight--
      }
    },
  })
  const launch = (options: LaunchOptions = {}): Promise<OpenedFlow> =>
    world.launch({ kms, ...options, segments: (right) => watched(options.segments?.(right) ?? right) })

  return Object.assign(seen, {
    world,
    store: world.store,
    frames,
    launch,
    /** Entries of these sizes, in one checkpoint of an instance that is gone then. */
    write: async (sizes: readonly number[]): Promise<EntryName[]> => {
      const opened = await launch()
      const names = sizes.map((_, index): EntryName => `final-result/entry-${String(index).padStart(4, '0')}`)
      await opened.flow.checkpoint(
        Object.fromEntries(
          names.map((name, index) => [name, { to: 'kms', bytes: patterned(index, sizes[index] as number) }]),
        ),
      )
      opened.wipe()
      return names
    },
    /** What the two halves of the entry that was written as the n-th are named after. */
    pairOf: async (n: number): Promise<string> => {
      const names = await world.store.list(`${FLOW}/direct-`)
      const pairs = names.filter((name) => name.endsWith('.payload')).map((name) => name.slice(0, -'.payload'.length))
      return pairs[n] as string
    },
    collect: async (opened: OpenedFlow, names: readonly EntryName[], signal?: AbortSignal): Promise<BulkItem[]> => {
      const items: BulkItem[] = []
      for await (const item of opened.flow.readBulk(names, signal === undefined ? {} : { signal })) items.push(item)
      return items
    },
    /** Of the buffers of `sizeBytes` that are made while `work` runs: how many, and how many hold anything afterwards. */
    buffersLeft: async (
      work: () => Promise<void>,
      sizeBytes: number,
    ): Promise<{ readonly made: number; readonly dirty: number }> => {
      const made: ArrayBuffer[] = []
      const Original = globalThis.ArrayBuffer
      const Watched = class extends Original {
        constructor(size: number) {
          super(size)
          if (size === sizeBytes) made.push(this)
        }
      }
      globalThis.ArrayBuffer = Watched as typeof Original
      try {
        await work()
      } finally {
        globalThis.ArrayBuffer = Original
      }
      const dirty = made.filter((buffer) => new Uint8Array(buffer).some((byte) => byte !== 0)).length
      return { made: made.length, dirty }
    },
  })
}
