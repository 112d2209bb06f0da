import { createServer, request } from 'node:http'
import { once } from 'node:events'
import { join } from 'node:path'
import type { AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { serveKms } from '../../../kms/index.js'
import { encodeCbor } from '../../../protocol/cbor.js'
import { leaks, stops, type Attack } from '../attack.js'

/** A KMS that could be sent somewhere would reach what its host cannot. */

interface Sent {
  readonly path: string
  readonly body: Uint8Array
  readonly headers?: Record<string, string>
}

const send = (port: number, { path, body, headers }: Sent): Promise<void> =>
  new Promise((resolve) => {
    const sent = request({ port, host: '127.0.0.1', path, method: 'POST', headers: headers ?? {} }, (response) => {
      response.resume().on('end', resolve)
    })
    sent.on('error', () => resolve())
    sent.end(body)
  })

/** Every kind of frame with every field in which a location could be put, and HTTP's own ways to name one. */
const framesFor = (location: string): Sent[] => {
  const ops = ['identity', 'challenge', 'handshake', 'call', 'segment', 'fetch', 'relay', 'open']
  const fields = ['url', 'location', 'path', 'store', 'source', 'handshake', 'sealed', 'stream', 'evidence']
  const frames = ops.flatMap((op) =>
    fields.map((field): Sent => ({ path: '/v1/exchange', body: encodeCbor({ op, [field]: location }) })),
  )
  const body = encodeCbor({ op: 'identity' })
  const headers = {
    host: new URL(location).host,
    'x-forwarded-host': new URL(location).host,
    forwarded: `host=${location}`,
  }
  return [
    ...frames,
    { path: location, body },
    { path: '/v1/exchange', body, headers },
    { path: `/v1/exchange?url=${location}`, body },
  ]
}

const directRelay: Attack = {
  name: 'direct-relay-ssrf',
  attacker: 'H1',
  tries:
    'a location of the host’s choice in every field of every frame, in the request’s target and headers. Bare: a relay that fetches what it is told',
  expected: {
    bare: 'leaks',
    worker: 'stops',
    process: { notApplicable: 'the KMS is the same, however its enclaves are isolated' },
  },
  async run(stage) {
    let visits = 0
    const trap = createServer((_, response) => {
      visits++
      response.end()
    })
    trap.listen(0, '127.0.0.1')
    await once(trap, 'listening')
    const location = `http://127.0.0.1:${(trap.address() as AddressInfo).port}/`
    const port =
      stage.level === 'bare'
        ? await openRelay()
        : await openKms(stage.directory, stage.platform.publicKey, stage.image.measurement)
    for (const frame of framesFor(location)) await send(port, frame)
    await sleep(200)
    return visits > 0 ? leaks('it goes where it is told') : stops('no frame makes it go anywhere')
  },
}

/** Fetches whatever location stands in what it is sent. */
const openRelay = async (): Promise<number> => {
  const server = createServer((incoming, response) => {
    const chunks: Buffer[] = []
    incoming.on('data', (chunk: Buffer) => chunks.push(chunk))
    incoming.on('end', () => {
      const location = /http:\/\/[\d.]+:\d+\//.exec(Buffer.concat(chunks).toString('latin1'))?.[0]
      if (location !== undefined)
        request(location)
          .on('error', () => undefined)
          .end()
      response.end()
    })
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return (server.address() as AddressInfo).port
}

const openKms = async (
  directory: string,
  platform: Uint8Array<ArrayBuffer>,
  measurement: Uint8Array<ArrayBuffer>,
): Promise<number> => {
  const { createKms } = await import('../../../kms/place.js')
  const { nodeFileSystem } = await import('../../../storage/index.js')
  const { Secret } = await import('../../../protocol/crypto/secret.js')
  const { nodeRandom } = await import('../../../protocol/crypto/primitives.js')
  const place = { directory: join(directory, 'kms') }
  const passphrase = (): Uint8Array<ArrayBuffer> => new TextEncoder().encode('correct horse')
  await nodeFileSystem.makeDirectory(place.directory)
  await createKms({ place, passphrase: Secret.take(passphrase()), fs: nodeFileSystem, random: nodeRandom, logN: 4 })
  const policy = { platforms: [platform], images: [{ name: 'any', measurement }] }
  const served = await serveKms({ ...place, passphrase: passphrase(), policy, port: 0, insecureLoopback: true })
  return Number(new URL(served.url).port)
}

export const RELAY_ATTACKS: readonly Attack[] = [directRelay]
