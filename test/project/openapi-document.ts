import { writeFileSync } from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import prettier from 'prettier'
import { openApiDocument } from '../../kms/openapi.js'
import { ROOT } from './rooms.js'

export const OPENAPI_DOCUMENT = path.join(ROOT, 'docs/openapi.json')

/** What docs/openapi.json must say, formatted. */
export const renderOpenApi = async (): Promise<string> => {
  const options = await prettier.resolveConfig(OPENAPI_DOCUMENT)
  return prettier.format(JSON.stringify(openApiDocument()), { ...options, parser: 'json' })
}

if (process.argv[1] === fileURLToPath(import.meta.url)) writeFileSync(OPENAPI_DOCUMENT, await renderOpenApi())
