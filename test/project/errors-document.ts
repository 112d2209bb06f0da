import { readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import prettier from 'prettier'
import ts from 'typescript'
import { describeError, isErrorCode, outsideCode, type ErrorCode } from '../../protocol/errors.js'
import { ROOT } from './rooms.js'

export const ERRORS_DOCUMENT = path.join(ROOT, 'docs/errors.md')

const HEAD = `# Error codes

Every refusal and failure is a \`KeyriseError\` with one of these codes. \`message\` is the text below and, at most, public
detail: never a secret, never a caller’s bytes. \`remedy\` says what to do. A code’s meaning does not change between versions.

Where the last column names another code, the first exists inside trusted code and the local command line only and leaves
them as the other: an attacker who learns why an envelope did not open has an oracle.

Generated from \`protocol/errors.ts\` by \`npm run docs:errors\`.
`

/** The codes in the order of the source, under the comment that stands above each group there. */
const readGroups = (): { title: string; codes: ErrorCode[] }[] => {
  const file = path.join(ROOT, 'protocol/errors.ts')
  const source = ts.createSourceFile(file, readFileSync(file, 'utf8'), ts.ScriptTarget.ES2023)
  const groups: { title: string; codes: ErrorCode[] }[] = []
  const visit = (node: ts.Node): void => {
    if (ts.isPropertyAssignment(node) && ts.isIdentifier(node.name) && isErrorCode(node.name.text)) {
      const comment = ts.getLeadingCommentRanges(source.text, node.pos)?.at(-1)
      if (comment !== undefined)
        groups.push({ title: source.text.slice(comment.pos + 2, comment.end).trim(), codes: [] })
      groups.at(-1)?.codes.push(node.name.text)
    } else ts.forEachChild(node, visit)
  }
  visit(source)
  return groups
}

const renderCode = (code: ErrorCode): string => {
  const { text, remedy } = describeError(code)
  const outside = outsideCode(code)
  return `| \`${code}\` | ${text} | ${remedy} | ${outside === code ? '' : `\`${outside}\``} |`
}

/** What docs/errors.md must say, formatted. */
export const renderErrors = async (): Promise<string> => {
  const sections = readGroups().map(({ title, codes }) =>
    [
      `## ${title}`,
      '',
      '| code | what happened | what to do | leaves as |',
      '|---|---|---|---|',
      ...codes.map(renderCode),
    ].join('\n'),
  )
  const options = await prettier.resolveConfig(ERRORS_DOCUMENT)
  return prettier.format([HEAD, ...sections].join('\n\n'), { ...options, parser: 'markdown' })
}

if (process.argv[1] === fileURLToPath(import.meta.url)) writeFileSync(ERRORS_DOCUMENT, await renderErrors())
