import { existsSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import { connectKms } from '../../host/kms.js'
import { passOn } from '../../cli/console-command.js'
import { adminSocketPath } from '../../kms/admin-socket.js'
import { AttestedClient, digestOf, type ClientOptions } from '../kms/attested-client.js'
import { IMAGE } from '../kms/in-process.js'
import { serve } from '../kms/served.js'

/** Debian's chromium, where it is installed. */
export const chromiumPath = (): string | undefined =>
  (process.env['PATH'] ?? '')
    .split(delimiter)
    .map((folder) => join(folder, 'chromium'))
    .find((path) => existsSync(path))

const TASK = 'credit-2026'

/** A KMS with flows of three hospitals, and what shows its console to a browser. */
export const consoleWorld = async (t: Parameters<typeof serve>[0]) => {
  const { served, platform, place } = await serve(t)
  const kms = await connectKms(served.url)
  t.teardown(() => kms.close())
  const socketPath = adminSocketPath(place.directory)
  const { url, close } = await passOn(socketPath, 0)
  t.teardown(() => Promise.resolve(close()))
  const connect = (o: Partial<ClientOptions> = {}) =>
    AttestedClient.connect({ kms, kmsIdentity: served.identity, platform, image: IMAGE, ...o })
  /** An enclave recovers `flow`, and commits so many epochs. */
  const recover = async (flow: string, commitCount = 1): Promise<AttestedClient> => {
    const client = await connect()
    const { head: seen, incarnation: before } = await client.open(flow, TASK)
    const claim = { op: 'claim', head: seen, incarnation: before, adopt: null, stale: false } as const
    const { incarnation } = (await client.call(claim)).reply
    let head = seen
    for (let count = 0; count < commitCount; count++) {
      const next = { epoch: (head?.epoch ?? 0) + 1, digest: digestOf(count) }
      await client.call({ op: 'commit', incarnation, parent: head, head: next })
      head = next
    }
    return client
  }
  await recover('hospital-north', 3)
  const fenced = await recover('hospital-east', 2)
  await recover('hospital-east', 1)
  await recover('hospital-south', 5)
  // What a newer instance has fenced off is refused.
  const refused = fenced.call({ op: 'commit', incarnation: 1, parent: null, head: { epoch: 1, digest: digestOf(1) } })
  await refused.catch(() => undefined)
  return { url, recover, served, socketPath }
}
