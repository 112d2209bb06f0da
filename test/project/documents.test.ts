import { execFileSync } from 'node:child_process'
import { cpSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import test from 'ava'
import { isErrorCode } from '../../protocol/errors.js'
import { ROOMS, ROOT } from './rooms.js'

/** What the documents say, held against the tree: code, output, links, scripts, codes. */

const read = (file: string): string => readFileSync(path.join(ROOT, file), 'utf8')

const DOCUMENTS = ['.', 'docs', ...ROOMS]
  .flatMap((folder) =>
    readdirSync(path.join(ROOT, folder), { recursive: folder !== '.', encoding: 'utf8' }).map((file) =>
      path.posix.join(folder, file),
    ),
  )
  .filter((file) => file.endsWith('.md'))

const FENCED = /<!-- (?<kind>file|output): (?<name>\S+) -->\s*```\w*\n(?<text>[^]*?)```/g

const fenced = (kind: string): { document: string; name: string; text: string }[] =>
  DOCUMENTS.flatMap((document) =>
    Array.from(read(document).matchAll(FENCED), ({ groups }) => ({
      document,
      kind: groups?.['kind'],
      name: groups?.['name'] ?? '',
      text: groups?.['text'] ?? '',
    })),
  ).filter((block) => block.kind === kind)

test('code in the documents is the code of the files that it names', (t) => {
  t.true(fenced('file').length > 0)
  for (const { document, name, text } of fenced('file')) t.is(text, read(name), `${document}: ${name}`)
})

test('the quickstart prints what the README says', (t) => {
  const [shown] = fenced('output').filter(({ name }) => name === 'quickstart')
  const folder = mkdtempSync(path.join(tmpdir(), 'keyrise-quickstart-'))
  try {
    for (const name of ['dist', 'node_modules', 'package.json'])
      symlinkSync(path.join(ROOT, name), path.join(folder, name))
    cpSync(path.join(ROOT, 'examples/quickstart'), path.join(folder, 'examples/quickstart'), { recursive: true })
    const main = path.join(ROOT, 'dist/examples/quickstart/main.js')
    t.is(execFileSync(process.execPath, [main], { cwd: folder, encoding: 'utf8' }), shown?.text ?? '')
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
})

/** `document: match` for each match of `pattern` in the documents, of its first group where it has one. */
const mentions = (pattern: RegExp): { document: string; mention: string }[] =>
  DOCUMENTS.flatMap((document) =>
    Array.from(read(document).matchAll(pattern), ([whole, group]) => ({ document, mention: group ?? whole })),
  )

test('links between documents lead somewhere', (t) => {
  const links = mentions(/\]\((?!https?:|#)([^)#\s]+)/g)
  const leadsNowhere = ({ document, mention }: { document: string; mention: string }): boolean =>
    !existsSync(path.join(ROOT, path.dirname(document), mention))
  t.deepEqual(links.filter(leadsNowhere), [])
})

test('the scripts that documents name exist', (t) => {
  const { scripts } = JSON.parse(read('package.json')) as { scripts: Record<string, string> }
  t.deepEqual(
    mentions(/npm run ([\w:-]+)/g).filter(({ mention }) => !(mention in scripts)),
    [],
  )
})

test('the error codes that documents name exist', (t) => {
  t.deepEqual(
    mentions(/\bERR_[A-Z_]*[A-Z]\b(?!_)/g).filter(({ mention }) => !isErrorCode(mention)),
    [],
  )
})
