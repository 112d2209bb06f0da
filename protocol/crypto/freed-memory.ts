/** An allocator’s small blocks are kept apart by size, in steps of 16 bytes; what is larger is split as it is needed. */
const SMALL_SIZE_BYTES_MAX = 1040
const SMALL_COUNT = 16
const LARGE_SIZE_BYTES_MAX = 64 * 1024
/** Of blocks of each large size. */
const LARGE_TOTAL_BYTES = 1024 * 1024

/**
 * Overwrites memory that was freed: Node’s decipher leaves a copy of each output in a block that it frees without clearing, and
 * nobody has a name for it. New buffers lie where such blocks were. They are made without the allocator’s own zero-filling: in
 * glibc that passes over the blocks that a thread has freed last. As good as an allocator’s habits are known.
 */
export const overwriteFreed = (): void => {
  const blocks: Uint8Array[] = []
  const overwrite = (size: number): void => void blocks.push(Buffer.allocUnsafeSlow(size).fill(0))
  // Falling, so that what a larger block leaves of a hole is filled by smaller ones.
  for (let size = LARGE_SIZE_BYTES_MAX; size > SMALL_SIZE_BYTES_MAX; size = Math.floor(size * 0.75))
    for (let left = LARGE_TOTAL_BYTES; left > 0; left -= size) overwrite(size)
  for (let size = SMALL_SIZE_BYTES_MAX; size > 0; size -= 16)
    for (let count = 0; count < SMALL_COUNT; count++) overwrite(size)
}
