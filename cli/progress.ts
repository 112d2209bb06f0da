/** How far a long command is, on standard error where that is a terminal: one line, which goes away at the end. */

const DELAY_MS = 2000
const INTERVAL_MS = 200
const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB'] as const

/** As in `1.5 GiB`. */
export const formatSize = (sizeBytes: number): string => {
  let [size, unit] = [sizeBytes, 0]
  for (; size >= 1024 && unit < UNITS.length - 1; unit++) size /= 1024
  const digits = unit === 0 || size >= 100 ? 0 : 1
  return `${size.toFixed(digits)} ${UNITS[unit] ?? ''}`
}

const formatTime = (seconds: number): string => {
  const whole = Math.round(seconds)
  return `${String(Math.floor(whole / 60))}:${String(whole % 60).padStart(2, '0')}`
}

export class Progress implements Disposable {
  readonly #totalSizeBytes: number | undefined
  readonly #startMs = performance.now()
  #shownMs = this.#startMs + DELAY_MS - INTERVAL_MS
  #isDrawn = false

  /** @param totalSizeBytes - undefined where it is not known, as of a pipe. */
  constructor(totalSizeBytes: number | undefined) {
    this.#totalSizeBytes = totalSizeBytes
  }

  /** @param sizeBytes - done so far. Cheap enough to be called for every piece. */
  show(sizeBytes: number): void {
    const now = performance.now()
    if (now - this.#shownMs < INTERVAL_MS) return
    this.#shownMs = now
    if (!process.stderr.isTTY) return
    this.#isDrawn = true
    process.stderr.write(`\r\u001b[K${this.#line(sizeBytes, (now - this.#startMs) / 1000)}`)
  }

  [Symbol.dispose](): void {
    if (this.#isDrawn) process.stderr.write('\r\u001b[K')
  }

  #line(sizeBytes: number, seconds: number): string {
    const rate = sizeBytes / seconds
    const parts = [formatSize(sizeBytes)]
    const total = this.#totalSizeBytes
    if (total !== undefined) parts.push(`of ${formatSize(total)}`)
    parts.push(`${formatSize(rate)}/s`)
    if (total !== undefined && rate > 0) parts.push(`${formatTime(Math.max(0, total - sizeBytes) / rate)} left`)
    return parts.join('  ')
  }
}
