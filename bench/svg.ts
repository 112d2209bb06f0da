import { formatFigure, formatPlace } from './figures.js'
import type { Curve, Series } from './report.js'

/** Curves as one picture for the documents: panels in two columns, readable without scripts or fonts of its own. */

const PANEL = { width: 480, height: 330, left: 62, right: 20, top: 76, bottom: 48 }
const PLOT = { width: PANEL.width - PANEL.left - PANEL.right, height: PANEL.height - PANEL.top - PANEL.bottom }
/** Ours first; apart for those who see colours otherwise, too (Okabe and Ito). */
const COLORS = ['#0072b2', '#d55e00', '#009e73', '#cc79a7', '#8a6d00', '#56b4e9', '#5d626b']

export const renderSvg = (curves: Readonly<Record<string, Curve>>): string => {
  const panels = Object.values(curves).map((curve, index) => {
    const [x, y] = [(index % 2) * PANEL.width, Math.floor(index / 2) * PANEL.height]
    return `<g transform="translate(${x} ${y})">\n${renderPanel(curve).join('\n')}\n</g>`
  })
  const width = PANEL.width * Math.min(2, Math.max(1, panels.length))
  const height = PANEL.height * Math.max(1, Math.ceil(panels.length / 2))
  const said = Object.values(curves).map(({ what }) => what)
  return `${[
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" role="img" aria-labelledby="t d" font-family="system-ui, sans-serif" font-size="12">`,
    '<title id="t">How the cost of Keyrise grows, beside its peers</title>',
    `<desc id="d">${escapeText(said.join('; '))}. The figures are a table in performance.md.</desc>`,
    '<style>text { fill: #22252a } .title { font-weight: 600; font-size: 14px } .quiet { fill: #5d626b } .grid { stroke: #e3e0d8 } .curve { fill: none; stroke-width: 2 }</style>',
    `<rect width="${width}" height="${height}" fill="#ffffff"/>`,
    ...panels,
    '</svg>',
  ].join('\n')}\n`
}

const escapeText = (text: string): string =>
  text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;')

const renderPanel = (curve: Curve): string[] => {
  const isNumeric = curve.series.every(({ points }) => points.every(([x]) => typeof x === 'number'))
  return [
    label(16, 24, `${curve.what}, ${curve.y}${isNumeric ? '' : ' (logarithmic)'}`, 'class="title"'),
    ...renderLegend(curve.series),
    ...(isNumeric ? renderLines(curve) : renderBars(curve)),
  ]
}

const label = (x: number, y: number, text: string, more = ''): string =>
  `<text x="${round(x)}" y="${round(y)}"${more === '' ? '' : ` ${more}`}>${escapeText(text)}</text>`

const round = (value: number): number => Math.round(value * 10) / 10

/** About the width of a letter of 12 px. */
const LETTER_WIDTH = 6.6

const renderLegend = (series: readonly Series[]): string[] => {
  let [x, y] = [16, 44]
  return series.flatMap(({ name }, index) => {
    const width = 22 + name.length * LETTER_WIDTH
    if (x + width > PANEL.width - 8) [x, y] = [16, y + 16]
    const parts = [
      `<rect x="${round(x)}" y="${y - 9}" width="10" height="10" fill="${colorOf(index)}"/>`,
      label(x + 14, y, name),
    ]
    x += width + 8
    return parts
  })
}

const colorOf = (index: number): string => COLORS[index % COLORS.length] ?? '#22252a'

/** Where a value lies between two ends, 0 to 1. */
type Scale = (value: number) => number

const linear =
  (low: number, high: number): Scale =>
  (value) =>
    high === low ? 0.5 : (value - low) / (high - low)

const logarithmic = (low: number, high: number): Scale => {
  const scale = linear(Math.log(low), Math.log(high))
  return (value) => scale(Math.log(value))
}

const renderLines = ({ x, series }: Curve): string[] => {
  const points = series.flatMap((one) => one.points.map(([at, value]) => [Number(at), value] as const))
  const xs = [...new Set(points.map(([at]) => at))].sort((a, b) => a - b)
  const ys = points.map(([, value]) => value)
  const [first, last] = [xs[0] ?? 0, xs.at(-1) ?? 1]
  // Sizes span decades; threads do not.
  const isWide = first > 0 && last / first > 64
  const ticks = isWide ? decades(Math.min(...ys), Math.max(...ys)) : steps(Math.max(...ys))
  const [low, high] = [ticks[0] ?? 0, ticks.at(-1) ?? 1]
  const toX = isWide ? logarithmic(first, last) : linear(first, last)
  const toY = isWide ? logarithmic(low, high) : linear(low, high)
  const placeX = (value: number): number => PANEL.left + toX(value) * PLOT.width
  const placeY = (value: number): number => PANEL.top + (1 - toY(value)) * PLOT.height
  return [
    ...ticks.flatMap((tick) => [
      `<path class="grid" d="M${PANEL.left} ${round(placeY(tick))}H${PANEL.width - PANEL.right}"/>`,
      label(PANEL.left - 6, placeY(tick) + 4, formatFigure(tick), 'text-anchor="end" class="quiet"'),
    ]),
    ...xs.map((at) => label(placeX(at), PANEL.height - 30, formatPlace(x, at), 'text-anchor="middle" class="quiet"')),
    label(
      PANEL.left + PLOT.width / 2,
      PANEL.height - 10,
      x.replace(/, bytes$/, ''),
      'text-anchor="middle" class="quiet"',
    ),
    ...series.flatMap((one, index) => {
      const places = one.points.map(([at, value]) => `${round(placeX(Number(at)))} ${round(placeY(value))}`)
      const dots = places.map((place) => {
        const [cx, cy] = place.split(' ')
        return `<circle cx="${cx ?? ''}" cy="${cy ?? ''}" r="3" fill="${colorOf(index)}"/>`
      })
      return [`<path class="curve" stroke="${colorOf(index)}" d="M${places.join('L')}"/>`, ...dots]
    }),
  ]
}

/** Powers of ten around all values. */
const decades = (low: number, high: number): number[] => {
  const first = Math.floor(Math.log10(Math.max(low, 1e-3)))
  const last = Math.max(first + 1, Math.ceil(Math.log10(Math.max(high, 1e-3))))
  return Array.from({ length: last - first + 1 }, (_, index) => 10 ** (first + index))
}

/** From zero in four or five round steps. */
const steps = (high: number): number[] => {
  const rough = Math.max(high, 1e-9) / 4
  const power = 10 ** Math.floor(Math.log10(rough))
  const step = ([1, 2, 5, 10].find((factor) => factor * power >= rough) ?? 10) * power
  return Array.from({ length: Math.ceil(high / step) + 1 }, (_, index) => index * step)
}

/** A group of bars for each name on the axis; logarithmic, since they lie decades apart. */
const renderBars = ({ series }: Curve): string[] => {
  const names = [...new Set(series.flatMap(({ points }) => points.map(([name]) => String(name))))]
  const values = series.flatMap(({ points }) => points.map(([, value]) => value))
  const ticks = decades(Math.min(...values), Math.max(...values))
  const scale = logarithmic(ticks[0] ?? 1, ticks.at(-1) ?? 10)
  const left = 180
  const width = PANEL.width - PANEL.right - left - 40
  const rowHeight = (PANEL.height - PANEL.top - 16) / names.length
  const barHeight = (rowHeight - 8) / series.length
  return names.flatMap((name, row) => {
    const top = PANEL.top + row * rowHeight
    return [
      label(left - 8, top + rowHeight / 2, name, 'text-anchor="end"'),
      ...series.flatMap(({ points }, index) => {
        const value = points.find(([at]) => at === name)?.[1]
        if (value === undefined) return []
        const [y, length] = [top + index * barHeight, scale(value) * width]
        const shape = `x="${left}" y="${round(y)}" width="${round(length)}" height="${round(barHeight - 1)}"`
        return [
          `<rect ${shape} fill="${colorOf(index)}"/>`,
          label(left + length + 4, y + barHeight / 2 + 4, formatFigure(value), 'class="quiet"'),
        ]
      }),
    ]
  })
}
