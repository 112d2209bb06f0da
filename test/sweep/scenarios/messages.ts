import { Buffer } from 'node:buffer'
import * as v from 'valibot'
import { defineScenario, type FlowScenario } from '../../../faults/index.js'
import { defineEnclave, ecall, ocall } from '../../../enclave/index.js'
import { secretBytes, secretText } from '../notebook.js'

/** What goes between a host and its enclave: calls with keys, which may come twice, and what the enclave asks of its host meanwhile. */
const rate = ocall({ input: v.string(), output: v.number() })

const clerk = defineEnclave({
  name: 'clerk',
  svn: 1,
  ocalls: { rate },
  ecalls: {
    note: ecall({ input: v.string(), output: v.number(), ocalls: { rate } }, async ({ flow, ocalls }, text) => {
      const value = await ocalls.rate('today')
      // Made twice, it would leave two.
      const name = `session/note-${flow.list().length}` as const
      return flow.checkpoint({ [name]: new Uint8Array(Buffer.from(`${text}, ${value}`)) })
    }),
  },
})

const notes =
  (label: string): FlowScenario<typeof clerk>['steps'][number] =>
  ({ ecalls }) =>
    ecalls.note(secretText(label), { idempotencyKey: label })

const LABELS = ['one', 'two', 'three'] as const

export default defineScenario({
  name: 'messages',
  flows: { party: { enclave: clerk, ocalls: { rate: () => Promise.resolve(7) }, steps: LABELS.map(notes) } },
  secrets: LABELS.map(secretBytes),
})
