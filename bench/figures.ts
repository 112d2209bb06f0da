import type { Result } from './report.js'

/** Numbers as people read them. */

/** Three digits that count, and separated thousands. */
export const formatFigure = (value: number): string =>
  Math.abs(value) >= 1000 ? Math.round(value).toLocaleString('en') : String(Number(value.toPrecision(3)))

/** What a row is graded by: a factor; a share of bytes; MiB. */
export const formatGraded = (value: number, { unit }: Pick<Result, 'unit'>): string => {
  if (unit === 'bytes') return `${formatFigure(value * 100)} %`
  return unit === 'MiB' ? `${formatFigure(value)} MiB` : `${formatFigure(value)}×`
}

const UNITS = ['B', 'KiB', 'MiB', 'GiB']

/** Bytes as people say them. */
export const formatSize = (value: number): string => {
  const power = Math.min(UNITS.length - 1, Math.floor(Math.log2(Math.max(1, value)) / 10))
  return `${formatFigure(value / 1024 ** power)} ${UNITS[power] ?? ''}`
}

/** A place on a curve’s axis: bytes where it counts bytes. */
export const formatPlace = (axis: string, value: number | string): string => {
  if (typeof value === 'string') return value
  return axis.endsWith('bytes') ? formatSize(value) : formatFigure(value)
}
