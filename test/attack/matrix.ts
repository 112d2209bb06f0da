import { LEVELS, type Attack, type Expected } from './attack.js'

/** docs/attack-matrix.md: what the code says, and the tests hold. Nothing of a machine or a run is in it. */

const INTRODUCTION = `# Attacks, and what stops them

Each row is an executable attack (\`test/attack/\`). It is tried on a plain worker thread first, where it must succeed, then on an
enclave at both levels of isolation. The key that it is after is 32 random bytes, made inside; a hit is that key in any form: raw,
hex, base64, decimal. An attack that is after something else says so. \`npm run attack\` runs them all and writes this page; the
tests fail when an outcome is another one, or when this page is not what the code says.

**Leaks** means that the attacker gets what it came for, **stops** that it does not. A leak in the columns of our own is expected:
it is kept as a test, so that the [threat model](threat-model.md), which has the attackers H1 to H4, stays true. The last column
says where only real hardware would stop it.
`

const cell = (expected: Expected): string => (typeof expected === 'string' ? expected : 'not applicable')

const HEADER = ['attack', 'attacker', 'bare worker', 'hardened worker', 'process', 'needs a TEE']

/** Padded as the formatter pads. */
const table = (lines: readonly (readonly string[])[]): string => {
  const widths = HEADER.map((_, column) => Math.max(...lines.map((line) => line[column]?.length ?? 0)))
  const row = (cells: readonly string[], fill = ' '): string =>
    `| ${cells.map((text, column) => text.padEnd(widths[column] ?? 0, fill)).join(' | ')} |`
  const [header = [], ...rest] = lines
  return [
    row(header),
    row(
      HEADER.map(() => ''),
      '-',
    ),
    ...rest.map((line) => row(line)),
  ].join('\n')
}

export const matrixDocument = (attacks: readonly Attack[]): string => {
  const rows = attacks.map(({ name, attacker, expected, needsTee }) => [
    `[${name}](#${name})`,
    attacker,
    ...LEVELS.map((level) => cell(expected[level])),
    needsTee === true ? 'yes' : '',
  ])
  const sections = attacks.map(({ name, tries, expected }) => {
    const reasons = LEVELS.flatMap((level) => {
      const { [level]: at } = expected
      return typeof at === 'string' ? [] : [`Not applicable to a ${LEVEL_NAMES[level]}: ${at.notApplicable}.`]
    })
    return [`### ${name}`, [`${tries}.`, ...reasons].join(' ')].join('\n\n')
  })
  return `${INTRODUCTION}\n${table([HEADER, ...rows])}\n\n## What each tries\n\n${sections.join('\n\n')}\n`
}

export const LEVEL_NAMES = { bare: 'bare worker', worker: 'hardened worker', process: 'process' } as const
