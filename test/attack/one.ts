import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Skipped, type Level } from './attack.js'
import { ATTACKS } from './registry.js'
import { Stage } from './stage.js'

/** One attack at one level, in this process, which it may ruin. The finding is written to a file. */
const [name, level, directory = '', images = ''] = process.argv.slice(2)
const attack = ATTACKS.find((known) => known.name === name)
if (attack === undefined) throw new Error(`No such attack: ${String(name)}`)
const write = (result: unknown): Promise<void> => writeFile(join(directory, 'finding.json'), JSON.stringify(result))
try {
  await write(await attack.run(await Stage.open(level as Level, directory, images)))
} catch (error) {
  if (!(error instanceof Skipped)) throw error
  await write({ outcome: 'skipped', detail: error.message })
}
process.exit(0)
