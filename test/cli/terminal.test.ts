import { spawn } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { makePlace } from '../kms/served.js'
import { withTerminal } from '../machine.js'

const COMMAND = fileURLToPath(new URL('../../cli/keyrise.js', import.meta.url))

/** Runs `keyrise` on a terminal, answering its questions in turn; gives all that the terminal showed. */
const runOnTerminal = (flags: readonly string[], answers: readonly string[]) =>
  runLineOnTerminal([process.execPath, COMMAND, ...flags].map((word) => `'${word}'`).join(' '), answers)

const runLineOnTerminal = (
  line: string,
  answers: readonly (string | ((shown: string) => void))[],
): Promise<{ code: number | null; shown: string }> => {
  const child = spawn('script', ['--quiet', '--return', '--command', line, '/dev/null'], {
    stdio: ['pipe', 'pipe', 'pipe'],
  })
  const left = [...answers]
  let [shown, questionCount] = ['', 0]
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    shown += text
    const asked = shown.match(/(keyring|file|again): /g)?.length ?? 0
    for (; questionCount < asked; questionCount++) {
      const answer = left.shift() ?? '\u0003'
      if (typeof answer === 'string') child.stdin.write(answer)
      else answer(shown)
    }
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

for (const signal of ['SIGTERM', 'SIGHUP'] as const) {
  withTerminal(`${signal} at a question leaves a terminal that shows what is typed`, async (t) => {
    const { root } = await makePlace(t)
    const [plain, sealed] = [join(root, 'plain'), join(root, 'sealed.age')]
    const names = await readdir(root)
    await writeFile(plain, 'what is sealed')
    const seal = `"${process.execPath}" "${COMMAND}" envelope seal --passphrase --out "${sealed}" "${plain}"`
    const { shown } = await runLineOnTerminal(`sh -c 'echo pid=$$; exec ${seal}'; stty -a`, [
      (asked) => process.kill(Number(/pid=(\d+)/.exec(asked)?.[1]), signal),
    ])
    t.regex(shown, / icanon/)
    t.regex(shown, / echo /)
    t.deepEqual((await readdir(root)).sort(), [...names, 'plain'].sort())
  })
}

withTerminal(
  'a file is sealed and opened by a passphrase asked for on the terminal, whatever standard input is',
  async (t) => {
    const { root } = await makePlace(t)
    const [plain, sealed, back] = ['plain', 'sealed.age', 'back'].map((name) => join(root, name)) as [
      string,
      string,
      string,
    ]
    await writeFile(plain, 'what is sealed')
    const seal = ['envelope', 'seal', '--passphrase', '--work-factor', '10', '--out', sealed, plain]
    t.is((await runOnTerminal(seal, ['one\r', 'two\r'])).code, 1)
    const done = await runOnTerminal(seal, ['pässwörd\r', 'pässwörd\r'])
    t.is(done.code, 0, done.shown)
    t.false(done.shown.includes('sswör'))
    const opening = `'${process.execPath}' '${COMMAND}' envelope open --out '${back}' < '${sealed}'`
    const opened = await runLineOnTerminal(opening, ['pässwörd\r'])
    t.is(opened.code, 0, opened.shown)
    t.is(await readFile(back, 'utf8'), 'what is sealed')
  },
)

withTerminal('an envelope is not written to a terminal unless it is armored or asked for', async (t) => {
  const { root } = await makePlace(t)
  const plain = join(root, 'plain')
  await writeFile(plain, 'what is sealed')
  const seal = ['envelope', 'seal', '--passphrase', '--work-factor', '10', plain]
  t.regex((await runOnTerminal(seal, [])).shown, /ERR_CONFIG_INVALID/)
  t.regex((await runOnTerminal([...seal, '--armor'], ['one\r', 'one\r'])).shown, /BEGIN AGE ENCRYPTED FILE/)
})

withTerminal('what takes long says how far it is, on a terminal only, and clears that line', async (t) => {
  const { root } = await makePlace(t)
  const command = `'${process.execPath}' '${COMMAND}' envelope`
  const slow = '(head -c 3000000 /dev/zero; sleep 3; head -c 3000000 /dev/zero)'
  const { code, shown } = await runLineOnTerminal(
    `${slow} | ${command} seal --passphrase --work-factor 10 --out '${join(root, 'sealed.age')}'`,
    ['one\r', 'one\r'],
  )
  t.is(code, 0, shown)
  t.regex(shown, /\r\u001b\[K\d\.\d MiB {2}\d.* [KM]iB\/s\r\u001b\[K$/)
})
