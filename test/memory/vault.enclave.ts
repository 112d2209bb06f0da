import { randomFillSync } from 'node:crypto'
import * as v from 'valibot'
import { defineEnclave, ecall, wipeAtExit, type CheckpointValue, type Flow } from '../../enclave/index.js'

const nothing = v.optional(v.undefined())
const SIZES = { 'session/small': 48, 'password/direct': 100, 'final-result/large': 700_000 } as const
const NAMES = Object.keys(SIZES) as (keyof typeof SIZES)[]

/** So many that some outlast an end that wipes nothing. */
const COPY_COUNT = 500

/** What its author holds on to: bytes that the runtime gave, and a copy that the runtime was told of. */
const kept: Uint8Array[] = []

const write = async (flow: Flow): Promise<void> => {
  for (const name of NAMES) {
    const bytes = randomFillSync(new Uint8Array(new ArrayBuffer(SIZES[name])))
    const value: CheckpointValue = name === 'session/small' ? bytes : { to: 'kms', bytes }
    await flow.checkpoint({ [name]: value })
    bytes.fill(0)
  }
}

const use = async (flow: Flow): Promise<void> => {
  for (const name of NAMES) kept.push((await flow.read(name)) as Uint8Array)
  for await (const item of flow.readBulk(NAMES)) if ('bytes' in item) kept.push(item.bytes)
  const message = new Uint8Array(10)
  kept.push(flow.open('step-1', flow.seal('step-1', message)), flow.agree(flow.agreementKey, 'step-1'))
  flow.sign(message)
  const small = (await flow.read('session/small')) as Uint8Array
  for (let count = 0; count < COPY_COUNT; count++) {
    const copy = new Uint8Array(new ArrayBuffer(small.length))
    copy.set(small)
    wipeAtExit(copy)
    kept.push(copy)
  }
}

/** An enclave whose memory is searched: it has secrets of every kind, and ends in every way. */
export default defineEnclave({
  name: 'vault',
  svn: 1,
  ecalls: {
    fill: ecall({ input: nothing, output: nothing }, async ({ flow }) => {
      await write(flow)
      await use(flow)
      return undefined
    }),
    /** In an instance that has made none of it. */
    use: ecall({ input: nothing, output: nothing }, async ({ flow }) => {
      await use(flow)
      return undefined
    }),
    fail: ecall({ input: nothing, output: nothing }, () => {
      setTimeout(() => {
        throw new Error('of its author')
      })
      return undefined
    }),
    reject: ecall({ input: nothing, output: nothing }, () => {
      void Promise.reject(new Error('of its author'))
      return undefined
    }),
    quit: ecall({ input: nothing, output: nothing }, () => process.exit(0)),
    exhaust: ecall({ input: nothing, output: nothing }, () => {
      for (const all: number[][] = []; ;) all.push(Array.from({ length: 1000 }, Math.random))
    }),
  },
})
