import { workerData } from 'node:worker_threads'
import { RingReader, RingWriter } from '../../protocol/ring.js'

/** The other thread of ring.test.ts: sends back every frame. */
const { there, back } = workerData as { there: SharedArrayBuffer; back: SharedArrayBuffer }
const [reader, writer] = [new RingReader(there, 2048), new RingWriter(back)]
const words = new Int32Array(reader.frame.buffer)
for (;;) {
  for (let sizeBytes = reader.read(); sizeBytes >= 0; sizeBytes = reader.read())
    while (!writer.write(words, sizeBytes)) reader.free()
  reader.free()
  reader.block(1000)
}
