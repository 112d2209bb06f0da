import { spawn, spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import test from 'ava'
import { makePlace } from '../kms/served.js'

const COMMAND = fileURLToPath(new URL('../../cli/keyrise.js', import.meta.url))
/** `script` (util-linux) gives a command a terminal of its own. */
const hasTerminal = spawnSync('script', ['--version'], { stdio: 'ignore' }).status === 0
const withTerminal = hasTerminal ? test : test.skip

/** Runs `keyrise` on a terminal, answering its questions in turn; gives all that the terminal showed. */
const runOnTerminal = (
  flags: readonly string[],
  answers: readonly string[],
): Promise<{ code: number | null; shown: string }> => {
  const line = [process.execPath, COMMAND, ...flags].map((word) => `'${word}'`).join(' ')
  const child = spawn('script', ['--quiet', '--return', '--command', line, '/dev/null'], {
    stdio: ['pipe', 'pipe', 'pipe'],
  })
  const left = [...answers]
  let [shown, questionCount] = ['', 0]
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    shown += text
    const asked = shown.match(/(keyring|again): /g)?.length ?? 0
    for (; questionCount < asked; questionCount++) child.stdin.write(left.shift() ?? '\u0003')
  })
  return new Promise((resolve) => child.once('close', (code) => resolve({ code, shown })))
}

withTerminal('on a terminal the passphrase is asked for, twice where it is new, and never shown', async (t) => {
  const place = await makePlace(t)
  const at = ['--directory', place.directory, '--custody', place.custody]
  const init = await runOnTerminal(['kms', 'init', ...at, '--work-factor', '10'], ['pässwörd\r', 'pässwörd\r'])
  t.is(init.code, 0, init.shown)
  t.false(init.shown.includes('sswör'))
  // Erasing takes whole characters away.
  const restore = await runOnTerminal(['kms', 'restore', ...at], ['pässwördö\u007f\r'])
  t.is(restore.code, 0, restore.shown)
  t.is((await runOnTerminal(['kms', 'restore', ...at], ['other\r'])).code, 1)
})

withTerminal('two passphrases that differ make no keyring; Ctrl-C ends it', async (t) => {
  const place = await makePlace(t)
  const at = ['--directory', place.directory, '--custody', place.custody]
  const differ = await runOnTerminal(['kms', 'init', ...at], ['one\r', 'two\r'])
  t.is(differ.code, 1)
  t.regex(differ.shown, /differ/)
  t.is((await runOnTerminal(['kms', 'init', ...at], ['one\u0003'])).code, 130)
})
