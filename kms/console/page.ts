import type { ConsoleFlow, ConsoleKey, ConsoleRecovery, ConsoleState } from './state.js'

/**
 * The console in the browser: it asks for the KMS's state, draws it, and asks again for a newer one, which the KMS answers when
 * there is one. What the KMS says is put in as text alone, and a part of the page is drawn again only when it has changed, so
 * that neither the focus nor what is unfolded is lost.
 */

const STATE_URL = '/v1/console'
const RETRY_MS = 2_000
const TIMELINE_MS = 60 * 60_000
const LANE_PX = 28

type Child = Node | string | number
type Attributes = Readonly<Record<string, string>>

const SVG = 'http://www.w3.org/2000/svg'

const make = (tag: string, attributes: Attributes = {}, ...children: readonly Child[]): HTMLElement =>
  fill(document.createElement(tag), attributes, children)

const makeSvg = (tag: string, attributes: Attributes = {}, ...children: readonly Child[]): SVGElement =>
  fill(document.createElementNS(SVG, tag), attributes, children)

const fill = <E extends Element>(element: E, attributes: Attributes, children: readonly Child[]): E => {
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value)
  element.append(...children.map((child) => (typeof child === 'number' ? String(child) : child)))
  return element
}

const byId = (id: string): HTMLElement => {
  const element = document.getElementById(id)
  if (element === null) throw new Error(`The page lacks ${id}`)
  return element
}

const timeOf = (ms: number): HTMLElement => {
  const time = new Date(ms).toISOString()
  return make('time', { datetime: time }, time.slice(0, 19).replace('T', ' '))
}

const durationOf = (ms: number): string => {
  const seconds = Math.max(0, Math.round(ms / 1000))
  if (seconds < 60) return `${String(seconds)} s`
  if (seconds < 3600) return `${String(Math.floor(seconds / 60))} min`
  return `${String(Math.floor(seconds / 3600))} h ${String(Math.floor((seconds % 3600) / 60))} min`
}

const tableOf = (heads: readonly string[], rows: readonly (readonly Child[])[], empty: string): HTMLElement => {
  if (rows.length === 0) return make('p', { class: 'empty' }, empty)
  const head = make('tr', {}, ...heads.map((name) => make('th', { scope: 'col' }, name)))
  const body = rows.map(([first = '', ...rest]) =>
    make('tr', {}, make('th', { scope: 'row' }, first), ...rest.map((cell) => make('td', {}, cell))),
  )
  return make('table', {}, make('thead', {}, head), make('tbody', {}, ...body))
}

const mark = (text: string, isGood: boolean): HTMLElement => make('span', { class: isGood ? 'good' : 'bad' }, text)

// Keys, as a tree: the KMS, its root keys by id, their versions, and the flows whose root keys hang from them

const keyTree = ({ identity, keys, flows }: ConsoleState): HTMLElement => {
  const ids = [...new Set(keys.map(({ key }) => idOf(key)))]
  const children = ids.map((id) =>
    branch(`root key ${id}`, id, [
      ...keys.filter(({ key }) => idOf(key) === id).map(keyLeaf),
      branch('business root keys', `${id}:flows`, flows.filter(({ root }) => root === id).map(flowLeaf)),
    ]),
  )
  return make('ul', { class: 'tree' }, branch(`KMS ${identity.slice(0, 16)}`, 'kms', children))
}

const idOf = (key: string): string => key.split('@', 1)[0] ?? key

/** A `details`: the browser folds it by keyboard, and says so to screen readers. */
const branch = (name: string, id: string, children: readonly Node[]): HTMLElement => {
  const summary = make('summary', {}, name, ' ', make('span', { class: 'count' }, children.length))
  const list = children.length === 0 ? make('p', { class: 'empty' }, 'none') : make('ul', {}, ...children)
  return make('li', {}, make('details', { open: '', 'data-id': id }, summary, list))
}

const keyLeaf = ({ key, suite, state, recipient }: ConsoleKey): HTMLElement =>
  make(
    'li',
    { title: recipient },
    make('code', {}, key),
    ' ',
    suite,
    ' ',
    mark(state, state === 'enabled' || state === 'decrypt-only'),
  )

const flowLeaf = ({ flow, epoch, state }: ConsoleFlow): HTMLElement =>
  make(
    'li',
    {},
    make('code', {}, flow),
    ` epoch ${String(epoch)}`,
    ...(state === 'active' ? [] : [' ', mark(state, false)]),
  )

// Recoveries, on a line of time for each flow

const timeline = ({ recoveries, nowMs }: ConsoleState): Node[] => {
  const shown = recoveries.filter(({ timeMs }) => nowMs - timeMs < TIMELINE_MS)
  const flows = [...new Set(shown.map(({ flow }) => flow))]
  const rows = recoveries.map((r) => [timeOf(r.timeMs), r.flow, r.incarnation, r.epoch])
  const table = tableOf(['time, UTC', 'flow', 'incarnation', 'epoch'], rows, 'No enclave has recovered yet.')
  return flows.length === 0 ? [table] : [picture(shown, flows, nowMs), table]
}

const picture = (shown: readonly ConsoleRecovery[], flows: readonly string[], nowMs: number): SVGElement => {
  const width = 960
  const left = 180
  const right = 24
  const height = flows.length * LANE_PX + 24
  const x = (ms: number): number => left + ((TIMELINE_MS - (nowMs - ms)) / TIMELINE_MS) * (width - left - right)
  const lanes = flows.flatMap((flow, lane) => {
    const y = String(lane * LANE_PX + LANE_PX / 2)
    return [
      makeSvg('text', { x: '0', y, 'dominant-baseline': 'middle' }, flow.slice(0, 24)),
      makeSvg('line', { x1: String(left), x2: String(width - right), y1: y, y2: y }),
      ...shown
        .filter((recovery) => recovery.flow === flow)
        .map(({ timeMs, incarnation, epoch }) =>
          makeSvg(
            'circle',
            { cx: x(timeMs).toFixed(1), cy: y, r: '6' },
            makeSvg('title', {}, `incarnation ${String(incarnation)}, epoch ${String(epoch)}`),
          ),
        ),
    ]
  })
  const ticks = [60, 45, 30, 15, 0].map((minutes) =>
    makeSvg(
      'text',
      { x: x(nowMs - minutes * 60_000).toFixed(0), y: String(height - 4), 'text-anchor': 'middle' },
      minutes === 0 ? 'now' : `−${String(minutes)} min`,
    ),
  )
  const label = `${String(shown.length)} recoveries of ${String(flows.length)} flows in the last hour; the table below has them all`
  return makeSvg(
    'svg',
    { viewBox: `0 0 ${String(width)} ${String(height)}`, role: 'img', 'aria-label': label },
    ...lanes,
    ...ticks,
  )
}

// The page

const flowTable = ({ flows }: ConsoleState): HTMLElement =>
  tableOf(
    ['flow', 'task', 'image', 'epoch', 'incarnation', 'state'],
    flows.map((f) => [
      make('code', {}, f.flow),
      f.task,
      f.image,
      f.epoch,
      f.incarnation,
      mark(f.state, f.state === 'active'),
    ]),
    'No flow is known yet.',
  )

const enclaveTable = ({ enclaves, nowMs }: ConsoleState): HTMLElement =>
  tableOf(
    ['image', 'flow', 'attested', 'calls', 'state'],
    enclaves.map((e) => [
      e.image,
      e.flow || '–',
      `${durationOf(nowMs - e.sinceMs)} ago`,
      e.callCount,
      mark(e.state, e.state === 'live'),
    ]),
    'No enclave has a session.',
  )

const receiptTable = ({ receipts }: ConsoleState): HTMLElement =>
  tableOf(
    ['number', 'time, UTC', 'what', 'flow', 'outcome'],
    receipts.map((r) => [
      r.sequence,
      timeOf(r.timeMs),
      r.kind,
      r.flow || '–',
      mark(r.outcome || 'done', r.outcome === ''),
    ]),
    'No receipt yet.',
  )

const healthList = (state: ConsoleState): HTMLElement => {
  const uptime = { name: 'up for', value: durationOf(state.nowMs - state.startedMs), isGood: true }
  const figures = [uptime, ...state.health].flatMap(({ name, value, isGood }) => [
    make('dt', {}, name),
    make('dd', {}, mark(value, isGood)),
  ])
  return make('dl', {}, ...figures)
}

/** Each part of the page, what it depends on, and what it draws of it. */
const PARTS: readonly (readonly [string, (state: ConsoleState) => unknown, (state: ConsoleState) => Node[]])[] = [
  ['health', (s) => [s.health, s.startedMs, Math.floor(s.nowMs / 1000)], (s) => [healthList(s)]],
  ['keys', (s) => [s.identity, s.keys, s.flows], (s) => [keyTree(s)]],
  ['flows', (s) => s.flows, (s) => [flowTable(s)]],
  ['enclaves', (s) => [s.enclaves, Math.floor(s.nowMs / 10_000)], (s) => [enclaveTable(s)]],
  ['recoveries', (s) => [s.recoveries, Math.floor(s.nowMs / 60_000)], timeline],
  ['receipts', (s) => s.receipts, (s) => [receiptTable(s)]],
]

const drawn = new Map<string, string>()

const draw = (state: ConsoleState): void => {
  byId('custody').replaceChildren(mark(state.custody, state.custody === 'unlocked'))
  byId('identity').textContent = state.identity.slice(0, 16)
  for (const [id, dependsOn, make] of PARTS) {
    const now = JSON.stringify(dependsOn(state))
    if (drawn.get(id) === now) continue
    drawn.set(id, now)
    keepUnfolded(byId(id), () => byId(id).replaceChildren(...make(state)))
  }
}

/** What was folded stays folded, and the focus stays where it was. */
const keepUnfolded = (part: HTMLElement, change: () => void): void => {
  const folds = (): NodeListOf<HTMLDetailsElement> => part.querySelectorAll('details')
  const folded = new Set([...folds()].filter((fold) => !fold.open).map((fold) => fold.dataset['id']))
  const active = document.activeElement?.parentElement
  const focused = active instanceof HTMLDetailsElement && part.contains(active) ? active.dataset['id'] : undefined
  change()
  for (const fold of folds()) {
    if (folded.has(fold.dataset['id'])) fold.open = false
    if (focused !== undefined && fold.dataset['id'] === focused) fold.querySelector('summary')?.focus()
  }
}

/** In the link that `keyrise kms console` prints; it leaves the address bar at once. */
let token: string | undefined = location.hash === '' ? undefined : location.hash.slice(1)
history.replaceState(null, '', location.pathname)

const say = (text: string, isGood: boolean): void => byId('link').replaceChildren(mark(text, isGood))

const ask = async (version: number): Promise<ConsoleState | 'unauthorised'> => {
  const headers: HeadersInit = token === undefined ? {} : { authorization: `Bearer ${token}` }
  const reply = await fetch(`${STATE_URL}?after=${String(version)}`, { headers, cache: 'no-store' })
  if (reply.status === 401) return 'unauthorised'
  if (!reply.ok) throw new Error(`status ${String(reply.status)}`)
  return (await reply.json()) as ConsoleState
}

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))

/** Resolves with what the operator has typed. It stays in this page's memory, and is gone when the page is. */
const askForToken = (isWrong: boolean): Promise<string> =>
  new Promise((resolve) => {
    const form = byId('login') as HTMLFormElement
    const field = byId('token') as HTMLInputElement
    byId('wrong').hidden = !isWrong
    form.hidden = false
    byId('content').hidden = true
    field.focus()
    form.onsubmit = (event) => {
      event.preventDefault()
      form.hidden = true
      const typed = field.value.trim()
      field.value = ''
      resolve(typed)
    }
  })

const follow = async (): Promise<never> => {
  let version = 0
  for (;;) {
    try {
      const state = await ask(version)
      if (state === 'unauthorised') {
        say('not signed in', false)
        token = await askForToken(token !== undefined)
        continue
      }
      version = state.version
      byId('content').hidden = false
      say('live', true)
      draw(state)
    } catch {
      say('no answer, trying again', false)
      version = 0
      await pause(RETRY_MS)
    }
  }
}

void follow()
