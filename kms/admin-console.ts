import { readFile } from 'node:fs/promises'
import type { ServerResponse } from 'node:http'
import { adminRoute } from './admin-route.js'
import { objectOf } from './admin-schema.js'
import { CONSOLE_HTML, CONSOLE_POLICY, CONSOLE_STYLE } from './console/document.js'

const textOf = (maxLength: number) => ({ type: 'string' as const, maxLength })
const COUNT = { type: 'integer', minimum: 0, maximum: Number.MAX_SAFE_INTEGER } as const
const NAME = textOf(128)

const listOf = <const P extends Parameters<typeof objectOf>[0]>(maxItems: number, properties: P) => ({
  type: 'array' as const,
  maxItems,
  items: objectOf(properties),
})

/** As kms/console/state.ts says it. */
const STATE = objectOf({
  version: COUNT,
  nowMs: COUNT,
  startedMs: COUNT,
  custody: { type: 'string', maxLength: 16, enum: ['sealed', 'unlocked'] },
  identity: textOf(64),
  keys: listOf(1024, { key: NAME, suite: NAME, state: NAME, recipient: textOf(4096) }),
  flows: listOf(500, {
    flow: NAME,
    task: NAME,
    image: NAME,
    epoch: COUNT,
    incarnation: COUNT,
    root: NAME,
    state: { type: 'string', maxLength: 32, enum: ['active', 'destroyed', 'stale state accepted'] },
  }),
  enclaves: listOf(100, {
    image: NAME,
    flow: NAME,
    sinceMs: COUNT,
    callCount: COUNT,
    state: { type: 'string', maxLength: 16, enum: ['live', 'superseded'] },
  }),
  recoveries: listOf(100, { timeMs: COUNT, flow: NAME, epoch: COUNT, incarnation: COUNT }),
  receipts: listOf(100, { sequence: COUNT, timeMs: COUNT, kind: NAME, flow: NAME, outcome: NAME }),
  health: listOf(32, { name: NAME, value: NAME, isGood: { type: 'boolean' } }),
})

export const consoleRoute = adminRoute({
  method: 'GET',
  path: '/v1/console',
  summary: 'What the console shows, as soon as it is newer than `after`, or when nothing has changed for 20 seconds.',
  request: objectOf({ after: { ...COUNT, description: 'the version that the caller has; 0 for none' } }),
  reply: STATE,
  run: (control, { after }) => control.console.after(after),
})

interface ConsoleFile {
  readonly type: string
  readonly content: string | Uint8Array
}

/** The console's page, which holds nothing of the KMS: what it shows, it asks for as any other client does. */
export const consoleFile = async (path: string | undefined): Promise<ConsoleFile | undefined> => {
  switch (path) {
    case '/console':
    case '/console/':
      return { type: 'text/html; charset=utf-8', content: CONSOLE_HTML }
    case '/console/style.css':
      return { type: 'text/css; charset=utf-8', content: CONSOLE_STYLE }
    case '/console/page.js':
      return {
        type: 'text/javascript; charset=utf-8',
        content: await readFile(new URL('console/page.js', import.meta.url)),
      }
    default:
      return undefined
  }
}

export const sendConsoleFile = (response: ServerResponse, { type, content }: ConsoleFile): void => {
  response.writeHead(200, {
    'content-type': type,
    'content-security-policy': CONSOLE_POLICY,
    'referrer-policy': 'no-referrer',
    'x-content-type-options': 'nosniff',
    'cache-control': 'no-store',
  })
  response.end(content)
}
