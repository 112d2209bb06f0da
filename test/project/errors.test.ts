import { readdirSync, readFileSync } from 'node:fs'
import path from 'node:path'
import test from 'ava'
import { ERROR_CODES } from '../../protocol/errors.js'
import { ERRORS_DOCUMENT, renderErrors } from './errors-document.js'
import { ROOMS, ROOT } from './rooms.js'

/** The TypeScript sources under `folder`, but for files whose path starts with one of `except`. */
const readSources = (folder: string, ...except: readonly string[]): string =>
  readdirSync(path.join(ROOT, folder), { recursive: true, encoding: 'utf8' })
    .map((file) => path.posix.join(folder, file))
    .filter((file) => file.endsWith('.ts') && !except.some((prefix) => file.startsWith(prefix)))
    .map((file) => readFileSync(path.join(ROOT, file), 'utf8'))
    .join('\n')

const isQuotedIn = (sources: string, code: string): boolean => sources.includes(`'${code}'`)

test('docs/errors.md says what protocol/errors.ts says', async (t) => {
  t.is(readFileSync(ERRORS_DOCUMENT, 'utf8'), await renderErrors(), 'run `npm run docs:errors`')
})

test('each error code is expected by some test', (t) => {
  const tests = readSources('test', 'test/project/')
  t.deepEqual(
    ERROR_CODES.filter((code) => !isQuotedIn(tests, code)),
    [],
  )
})

test('each error code is raised by production code', (t) => {
  const rooms = ROOMS.filter((room) => room !== 'examples' && room !== 'protocol/crypto')
  // Asking whether an error has a code does not raise it.
  const questions = /isKeyriseError\([^)]*\)|(?:[!=]==|case) 'ERR_[A-Z_]+'/g
  const raising = rooms.map((room) => readSources(room, 'protocol/errors.ts').replaceAll(questions, '')).join('\n')
  t.deepEqual(
    ERROR_CODES.filter((code) => !isQuotedIn(raising, code)),
    [],
  )
})
