import { connect, createServer, type Socket } from 'node:net'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import { concatBytes } from '../../protocol/bytes.js'
import type { KeyriseError } from '../../protocol/errors.js'
import { encodeMessage } from '../../protocol/message-codec.js'
import { SocketPort, type SocketEnd } from '../../protocol/socket-port.js'
import { FrameWriter } from '../../protocol/stream-frames.js'

const turn = () => new Promise((resolve) => setTimeout(resolve, 5))
const until = async (reached: () => boolean): Promise<void> => {
  while (!reached()) await turn()
}

/** Two connected sockets, and a port on the first. */
const withPort = async (
  waitsForReader: boolean,
  use: (given: { port: SocketPort; peer: Socket; errors: KeyriseError[]; socket: Socket }) => Promise<void>,
): Promise<void> => {
  const directory = await mkdtemp(join(tmpdir(), 'keyrise-socket-'))
  const path = join(directory, 's')
  const errors: KeyriseError[] = []
  const server = createServer()
  try {
    await new Promise<void>((listening) => server.listen(path, listening))
    const accepted = new Promise<Socket>((resolve) => server.once('connection', resolve))
    const peer = connect(path)
    const socket = await accepted
    const port = new SocketPort(socket, {
      defer: setImmediate,
      malformed: (error) => errors.push(error),
      waitsForReader,
    })
    await use({ port, peer, errors, socket })
    peer.destroy()
    port.close()
  } finally {
    server.close()
    await rm(directory, { recursive: true })
  }
}

const framed = (...messages: readonly Uint8Array[]): Uint8Array => {
  const writer = new FrameWriter()
  for (const message of messages) writer.add(message)
  return concatBytes(...writer.take())
}

test('what one port posts another receives, with its size', async (t) => {
  await withPort(false, async ({ port, peer }) => {
    const other = new SocketPort(peer, { defer: setImmediate, malformed: () => t.fail(), waitsForReader: false })
    const seen: unknown[] = []
    other.onMessage((message, sizeBytes) => seen.push([message, sizeBytes]))
    const bytes = new Uint8Array(200_000).fill(3)
    port.post({ id: 1, type: 'RAW', value: bytes })
    port.post({ id: 'x', type: 'RAW', value: undefined })
    await until(() => seen.length === 2)
    t.deepEqual(seen[0], [{ id: 1, type: 'RAW', value: bytes }, bytes.length])
    t.like(seen[1], { 0: { id: 'x', type: 'RAW' } })
  })
})

test('messages of one turn are written at once', async (t) => {
  await withPort(false, async ({ port, peer, socket }) => {
    let writeCount = 0
    const write = socket.write.bind(socket)
    const counted = (bytes: Uint8Array): boolean => {
      writeCount++
      return write(bytes)
    }
    Object.assign(socket, { write: counted })
    let received = 0
    peer.on('data', ({ length }) => (received += length))
    for (let count = 0; count < 100; count++) port.post({ id: count, type: 'RAW', value: 1 })
    t.is(writeCount, 0)
    await until(() => received >= 1000)
    t.is(writeCount, 1)
  })
})

test('what is no message is said, and the next one is delivered', async (t) => {
  await withPort(false, async ({ port, peer, errors }) => {
    const seen: unknown[] = []
    port.onMessage((message) => seen.push(message))
    const message = encodeMessage({ id: 1, type: 'RAW', value: 'kept' })
    for (const bad of [
      [],
      [255],
      [1],
      [1, 0, 0, 0, 0, 9, 65],
      [0, 0xff],
      [0, 0x9b, 255, 255, 255, 255, 255, 255, 255, 255],
    ])
      peer.write(framed(new Uint8Array(bad), message))
    await until(() => seen.length === 6)
    t.is(errors.length, 6)
    t.true(
      errors.every(({ code }) => ['ERR_MESSAGE_INVALID', 'ERR_SIZE_LIMIT', 'ERR_VALUE_UNSUPPORTED'].includes(code)),
    )
    t.deepEqual(seen[5], { id: 1, type: 'RAW', value: 'kept' })
  })
})

test('what cannot cross is refused where it is posted', async (t) => {
  await withPort(false, ({ port }) => {
    const post = (value: unknown) => () => port.post({ id: 1, type: 'RAW', value })
    t.throws(post(new Map()), { code: 'ERR_VALUE_UNSUPPORTED' })
    t.throws(post(new Uint8Array(new SharedArrayBuffer(1))), { code: 'ERR_SHARED_MEMORY' })
    t.throws(post(new Uint8Array(64 * 1024 * 1024 + 1)), { code: 'ERR_SIZE_LIMIT' })
    return Promise.resolve()
  })
})

test('a peer that sends and does not read fills no memory here, and is served once it reads', async (t) => {
  await withPort(true, async ({ port, peer, socket }) => {
    const reply = new Uint8Array(256 * 1024)
    let callCount = 0
    port.onMessage((message) => {
      callCount++
      port.post({ id: (message as { id: string }).id, type: 'RAW', value: reply })
    })
    const sent = 400
    for (let count = 0; count < sent; count++)
      peer.write(framed(encodeMessage({ id: count, type: 'RAW', value: new Uint8Array(32 * 1024) })))
    await until(() => socket.isPaused())
    const heldBack = callCount
    t.true(heldBack < sent, String(heldBack))
    t.true(socket.writableLength < 64 * 1024 * 1024)
    let received = 0
    peer.on('data', ({ length }) => (received += length))
    await until(() => received >= sent * reply.length)
    t.is(callCount, sent)
  })
})

/** A socket of which the test says whether the system takes what is written, and which notes when its reading pauses. */
class ScriptedSocket implements SocketEnd {
  readonly changes: string[] = []
  takesAll = true
  writtenSizeBytes = 0
  readonly #listeners = new Map<string, (chunk: Uint8Array) => void>()

  write(bytes: Uint8Array): boolean {
    this.writtenSizeBytes += bytes.length
    return this.takesAll
  }

  on(event: string, listen: (chunk: Uint8Array) => void): void {
    this.#listeners.set(event, listen)
  }

  emit(event: 'data' | 'drain', chunk: Uint8Array = new Uint8Array()): void {
    this.#listeners.get(event)?.(chunk)
  }

  pause(): void {
    this.changes.push('pause')
  }

  resume(): void {
    this.changes.push('resume')
  }

  cork(): void {}
  uncork(): void {}
  destroy(): void {}
}

/** A port over a scripted socket: it answers each call with 1 MiB, and writes what it has posted at once. */
const answering = (waitsForReader: boolean, defer = (work: () => void): void => work()) => {
  const socket = new ScriptedSocket()
  const malformed = (error: KeyriseError): never => {
    throw error
  }
  const port = new SocketPort(socket, { defer, malformed, waitsForReader })
  const value = new Uint8Array(1024 * 1024)
  port.onMessage(() => port.post({ id: 1, type: 'RAW', value }))
  const call = framed(encodeMessage({ id: 1, type: 'RAW', value: 1 }))
  const receive = (count: number): void => {
    for (let n = 0; n < count; n++) socket.emit('data', call)
  }
  return { socket, receive }
}

test('while 4 MiB wait for a peer that does not read, nothing more is read; once it has taken them, reading goes on', (t) => {
  const { socket, receive } = answering(true)
  receive(8)
  t.deepEqual(socket.changes, [], 'what is taken at once does not wait')
  socket.takesAll = false
  receive(1 + 3)
  t.deepEqual(socket.changes, [], 'the first was handed over, and three wait')
  socket.emit('drain')
  socket.takesAll = true
  socket.emit('drain')
  t.deepEqual(socket.changes, [], 'what was not paused is not resumed')
  socket.takesAll = false
  receive(1 + 4)
  t.deepEqual(socket.changes, ['pause'])
  const { writtenSizeBytes } = socket
  socket.emit('drain')
  t.true(socket.writtenSizeBytes >= writtenSizeBytes + 4 * 1024 * 1024)
  t.deepEqual(socket.changes, ['pause'], 'the system has not taken all of it')
  socket.takesAll = true
  socket.emit('drain')
  t.deepEqual(socket.changes, ['pause', 'resume'])
  socket.emit('drain')
  t.deepEqual(socket.changes, ['pause', 'resume'])
})

test('a port that is not to wait for its reader reads on, however much waits', (t) => {
  const { socket, receive } = answering(false)
  socket.takesAll = false
  receive(16)
  t.deepEqual(socket.changes, [])
})

test('what waits only for the end of the turn does not pause the reading: no drain would resume it', (t) => {
  const deferred: (() => void)[] = []
  const { socket, receive } = answering(true, (work) => void deferred.push(work))
  receive(8)
  t.is(socket.writtenSizeBytes, 0)
  t.deepEqual(socket.changes, [])
  for (const work of deferred) work()
  t.true(socket.writtenSizeBytes >= 8 * 1024 * 1024)
})

test('the end of the socket is the end of the port', async (t) => {
  await withPort(false, async ({ port, peer }) => {
    const seen: unknown[] = []
    port.onMessage((message) => seen.push(message))
    peer.end(framed(encodeMessage({ id: 1, type: 'RAW', value: 1 })))
    await port.closed
    t.is(seen.length, 1)
    t.notThrows(() => port.post({ id: 2, type: 'RAW', value: 1 }))
  })
})
