import { chmodSync, rmSync, writeFileSync } from 'node:fs'
import { basename } from 'node:path'
import { fileURLToPath } from 'node:url'
import { build, type Plugin } from 'esbuild'

/**
 * The end of `npm run build`: writes dist/bin, the command as it is installed. `keyrise envelope …` is short work on files, and
 * half of a short command’s time goes into finding and reading some fifty modules: there they are one file. Whatever else the
 * command does starts threads and servers by their places in dist, and runs from there.
 */

const pathOf = (relative: string): string => fileURLToPath(new URL(relative, import.meta.url))
const OUTPUT = pathOf('../bin/')
const OTHER_GROUPS =
  /\/(?:drill-command|image-commands|init|kms-commands|policy-commands|receipts-commands|sweep-commands)\.js$/

const ENTRY = `#!/usr/bin/env node
await import(process.argv[2] === 'envelope' ? './envelope.js' : '../cli/keyrise.js')
`

/** Commander is CommonJS, which a module cannot hold without `require`. */
const BANNER = `// With code of cborg, commander, @noble and @scure, whose licences lie in the packages that are installed beside this one.
import { createRequire } from 'node:module'; const require = createRequire(import.meta.url);`

/** They are never reached from the one file. */
const withoutOtherGroups: Plugin = {
  name: 'without other groups',
  setup(bundle) {
    bundle.onResolve({ filter: OTHER_GROUPS }, ({ path }) => ({ path: `../cli/${basename(path)}`, external: true }))
  },
}

rmSync(OUTPUT, { recursive: true, force: true })
await build({
  entryPoints: [
    { in: pathOf('keyrise.js'), out: 'envelope' },
    { in: pathOf('open-worker.js'), out: 'open-worker' },
  ],
  outdir: OUTPUT,
  bundle: true,
  minifyWhitespace: true,
  platform: 'node',
  target: 'node20',
  format: 'esm',
  banner: { js: BANNER },
  plugins: [withoutOtherGroups],
})
writeFileSync(`${OUTPUT}keyrise.js`, ENTRY)
chmodSync(`${OUTPUT}keyrise.js`, 0o755)
