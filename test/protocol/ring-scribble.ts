import { workerData } from 'node:worker_threads'

/** The hostile thread of ring.test.ts: writes anything anywhere, as fast as it can, mostly near what could be. */
const { memory, stop } = workerData as { memory: SharedArrayBuffer; stop: Int32Array }
const cells = new Int32Array(memory)
for (let count = 0; Atomics.load(stop, 0) === 0; count++) {
  const index = Math.floor(Math.random() * cells.length)
  const value = Math.random() < 0.8 ? Math.floor(Math.random() * 130) - 1 : Math.floor(Math.random() * 2 ** 32)
  cells[count % 3 === 0 ? (count & 1) * 16 : index] = value
}
