import { defineScenario, type FlowScenario } from '../../../faults/index.js'
import { notebook, secretBytes, secretText } from '../notebook.js'

type Step = FlowScenario<typeof notebook>['steps'][number]

const NAMES = ['session/a', 'session/b', 'session/c', 'session/d'] as const
const LABELS = Array.from({ length: 9 }, (_, index) => `step ${String(index)}`)

const writes =
  (label: string): Step =>
  ({ ecalls }) =>
    ecalls.write([
      ...NAMES.map((name) => ({ name, value: label.repeat(8000), direct: true })),
      { name: 'password/label', value: secretText(label) },
    ])

/** Four payloads of a dozen pages, written at once: more ways to tear them than can be counted; as many as a point has are tried. */
export default defineScenario({
  name: 'pages',
  flows: { party: { enclave: notebook, steps: LABELS.map(writes) } },
  secrets: LABELS.map(secretBytes),
})
