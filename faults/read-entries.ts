import { toHex } from '../protocol/bytes.js'
import type { OpenedFlow } from '../enclave/flow.js'

/** All entries of a flow, in hex. */
export const readEntries = async ({ flow }: OpenedFlow): Promise<Record<string, string>> => {
  // Settles what a lost answer left open, which `list`, being synchronous, cannot.
  await flow.read('session/none')
  const entries: Record<string, string> = {}
  for (const { name } of flow.list()) {
    const bytes = await flow.read(name)
    if (bytes === undefined) continue
    entries[name] = toHex(bytes)
    bytes.fill(0)
  }
  return entries
}
