import { Option, type Command } from 'commander'
import { wholeNumber } from './arguments.js'
import type { KeygenFlags } from './envelope-keygen.js'
import type { OpenFlags } from './envelope-open.js'
import type { RewrapFlags } from './envelope-rewrap.js'
import type { SealFlags } from './envelope-seal.js'

/** `keyrise envelope …`. Letters are those of age, where it has the flag. Each command loads what it needs when it is run. */
export const addEnvelopeCommands = (envelope: Command): void => {
  addKeygen(envelope)
  addSeal(envelope)
  addOpen(envelope)
  addInspect(envelope)
  addRewrap(envelope)
}

const several = (value: string, before: readonly string[] = []): string[] => [...before, value]
const DESCRIPTOR = wholeNumber(0, 1023)

const example = (command: Command, ...lines: readonly string[]): Command =>
  command.addHelpText(
    'after',
    ['', lines.length > 1 ? 'Examples:' : 'Example:', ...lines.map((line) => `  ${line}`)].join('\n'),
  )

const withRecipients = (command: Command): Command =>
  command
    .option('-r, --recipient <key>', 'a public key: age1…, age1pq1… or ssh-rsa …; repeatable', several)
    .option('-R, --recipients-file <file>', 'public keys, one a line; repeatable', several)
    .option('-p, --passphrase', 'for whoever knows a passphrase, which is asked for; no recipients beside it')
    .option('--work-factor <n>', 'scrypt’s work for the passphrase, as a power of two', wholeNumber(10, 20), 18)

const withIdentities = (command: Command): Command =>
  command
    .option('-i, --identity <file>', 'private keys: of keygen or age-keygen, or an RSA key in PEM; repeatable', several)
    .option('--passphrase-fd <n>', 'read the file’s passphrase from this file descriptor instead of asking', DESCRIPTOR)

const withOutput = (command: Command, what: string): Command =>
  command
    .option('-o, --out <file>', what)
    .option('-f, --force', 'replace that file if it exists')
    .option('--json', 'print one JSON object: on standard error, where standard output is taken')

const addKeygen = (envelope: Command): void => {
  const command = envelope
    .command('keygen')
    .description('make a private key, as age-keygen does')
    .option('-o, --out <file>', 'a new file, readable by its owner only; otherwise standard output')
    .addOption(
      new Option('--suite <name>', 'what the key is for').choices(['x25519', 'mlkem768x25519']).default('x25519'),
    )
    .option('--json', 'print one JSON object')
    .action(async (flags: KeygenFlags) => (await import('./envelope-keygen.js')).keygenCommand(flags))
  example(command, 'keyrise envelope keygen --out key.txt')
}

const addSeal = (envelope: Command): void => {
  const command = withRecipients(envelope.command('seal').description('seal a file, or standard input, for recipients'))
    .argument('[file]', 'what to seal; otherwise standard input')
    .option('--passphrase-fd <n>', 'read the passphrase from this file descriptor instead of asking', DESCRIPTOR)
    .option('-a, --armor', 'write ASCII armor')
  withOutput(command, 'where to write the envelope; otherwise standard output').action(
    async (file: string | undefined, flags: SealFlags) => (await import('./envelope-seal.js')).sealCommand(file, flags),
  )
  example(
    command,
    'keyrise envelope seal -r age1… -o model.age model.bin',
    'tar c results | keyrise envelope seal -R team.txt > results.tar.age',
  )
}

const addOpen = (envelope: Command): void => {
  const command = withIdentities(
    envelope.command('open').description('open an envelope: a file or standard input'),
  ).argument('[file]', 'an envelope, with or without armor; otherwise standard input')
  withOutput(command, 'where to write what is in it, once all of it is verified; otherwise standard output').action(
    async (file: string | undefined, flags: OpenFlags) => (await import('./envelope-open.js')).openCommand(file, flags),
  )
  example(
    command,
    'keyrise envelope open -i key.txt -o model.bin model.age',
    'keyrise envelope open -i key.txt < results.tar.age | tar x   # each chunk is released once it is verified',
  )
}

const addInspect = (envelope: Command): void => {
  const command = envelope
    .command('inspect')
    .description('explain an envelope, without any key')
    .argument('[file]', 'an envelope, with or without armor; otherwise standard input')
    .option('--json', 'print one JSON object')
    .action(async (file: string | undefined, flags: { readonly json?: boolean }) =>
      (await import('./envelope-inspect.js')).inspectCommand(file, flags),
    )
  example(command, 'keyrise envelope inspect model.age')
}

const addRewrap = (envelope: Command): void => {
  const command = withIdentities(
    withRecipients(envelope.command('rewrap').description('give an envelope new recipients; the old ones are gone')),
  )
    .argument('<file>', 'an envelope, replaced in one step; - for standard input, with --out')
    .option(
      '--new-passphrase-fd <n>',
      'read the new passphrase from this file descriptor instead of asking',
      DESCRIPTOR,
    )
    .option('--new-file-key', 'seal all of it anew: whoever could open it once may have kept the old file key')
  withOutput(command, 'write the new envelope here, and leave the file as it is').action(
    async (file: string, flags: RewrapFlags) => (await import('./envelope-rewrap.js')).rewrapCommand(file, flags),
  )
  example(
    command,
    'keyrise envelope rewrap -i old.txt -r age1… model.age',
    'keyrise envelope rewrap -i old.txt -R team.txt --new-file-key model.age   # a key was stolen',
  )
}
