import { defineScenario, type FlowScenario } from '../../../faults/index.js'
import { notebook, secretBytes, secretText } from '../notebook.js'

type Step = FlowScenario<typeof notebook>['steps'][number]

/** As many checkpoints as it takes until what they have dropped is deleted, while the next is written. */
const LABELS = Array.from({ length: 6 }, (_, index) => `step ${String(index)}`)

const writes =
  (label: string): Step =>
  ({ ecalls }) =>
    ecalls.write([
      { name: 'password/label', value: secretText(label) },
      { name: 'session/direct', value: secretText(label), direct: true },
    ])

export default defineScenario({
  name: 'collection',
  flows: { party: { enclave: notebook, steps: LABELS.map(writes) } },
  secrets: LABELS.map(secretBytes),
})
