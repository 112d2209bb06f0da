import { existsSync } from 'node:fs'
import { rename, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { setFlagsFromString } from 'node:v8'
import type { Level } from './attack.js'
import { CANARY_FILE, GONE, READY_FILE, Stage, TELL, TELL_FILE } from './stage.js'

/**
 * A host process of its own: launches the victim, makes the calls that it was asked for, and tells the key in a file when it is
 * asked. How it was started, and what becomes of it, is the attacker’s.
 */
const [level, directory = '', manner, ...calls] = process.argv.slice(2)
const victim = await (await Stage.open(level as Level, directory, directory)).launch()
const write = async (name: string, text: string): Promise<void> => {
  await writeFile(join(directory, `${name}.new`), text)
  await rename(join(directory, `${name}.new`), join(directory, name))
}
const tell = async (): Promise<void> => write(CANARY_FILE, Buffer.from(await victim.maskedCanary()).toString('base64'))

await victim.call('sign', new Uint8Array(8))
for (const name of calls) {
  if (name === TELL) await tell()
  else if (name === GONE) await victim.instance.exited
  else if (name === 'spin') void victim.call(name).catch(() => {})
  else if (name.startsWith('--')) setFlagsFromString(name)
  else await write(`${name}.json`, JSON.stringify(await victim.call(name).catch(String)))
}
await write(READY_FILE, '')
if (manner === 'stays') {
  while (!existsSync(join(directory, TELL_FILE))) await sleep(20)
  await tell()
  setInterval(() => {}, 1000)
} else {
  await victim.end().catch(() => {})
  process.exit(0)
}
