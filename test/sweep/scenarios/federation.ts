import { Buffer } from 'node:buffer'
import * as v from 'valibot'
import { defineScenario, type FlowScenario } from '../../../faults/index.js'
import { defineEnclave, ecall } from '../../../enclave/index.js'
import { secretBytes, secretText } from '../notebook.js'

/**
 * The phases of the federated job, with arithmetic in the place of homomorphic encryption: parties join, and contribute to each
 * round what they first record; the decryptor records which sum it opens before it answers, and answers the same for ever.
 */
const bytesOf = (text: string): Uint8Array<ArrayBuffer> => new Uint8Array(Buffer.from(text))
const ROUND = v.pipe(v.number(), v.integer())

const party = defineEnclave({
  name: 'party',
  svn: 1,
  ecalls: {
    join: ecall({ input: v.string(), output: v.number() }, async ({ flow }, data) => {
      await flow.publish({ share: flow.agreementKey })
      return flow.checkpoint({ 'pending-data/own': { to: 'kms', bytes: bytesOf(data) } })
    }),
    contribute: ecall({ input: ROUND, output: v.number() }, async ({ flow }, round) => {
      const own = (await flow.read('pending-data/own')) ?? new Uint8Array()
      const gradient = own.reduce((sum, byte) => sum + byte * round, 0)
      await flow.checkpoint({ [`intermediate-result/round-${round}`]: bytesOf(String(gradient)) })
      return gradient
    }),
  },
})

const decryptor = defineEnclave({
  name: 'decryptor',
  svn: 1,
  ecalls: {
    open: ecall({ input: v.object({ round: ROUND, sum: v.number() }), output: v.string() }, async ({ flow }, asked) => {
      const name = `final-result/round-${asked.round}` as const
      const known = await flow.read(name)
      if (known !== undefined) return Buffer.from(known).toString()
      await flow.checkpoint({ [name]: bytesOf(`sum ${asked.sum}`) })
      return `sum ${asked.sum}`
    }),
  },
})

const member = (label: string): FlowScenario<typeof party> => ({
  enclave: party,
  task: 'job',
  steps: [
    ({ ecalls }) => ecalls.join(secretText(label)),
    ({ ecalls }) => ecalls.contribute(1),
    ({ ecalls }) => ecalls.contribute(2),
  ],
})

const decrypting: FlowScenario<typeof decryptor> = {
  enclave: decryptor,
  task: 'job',
  steps: [({ ecalls }) => ecalls.open({ round: 1, sum: 41 }), ({ ecalls }) => ecalls.open({ round: 2, sum: 42 })],
}

export default defineScenario({
  name: 'federation',
  flows: { hospital: member('hospital'), clinic: member('clinic'), decryptor: decrypting },
  secrets: ['hospital', 'clinic'].map(secretBytes),
})
