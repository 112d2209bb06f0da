import { defineScenario, type FlowScenario } from '../../../faults/index.js'
import { notebook, secretBytes, secretText } from '../notebook.js'

/** Several flows at once, whose records share frames and fsyncs of the ledger, while the KMS starts anew. */
const party = (label: string): FlowScenario<typeof notebook> => ({
  enclave: notebook,
  task: 'task',
  steps: [
    ({ ecalls }) => ecalls.write([{ name: 'password/a', value: secretText(label) }]),
    ({ ecalls }) => ecalls.write([{ name: 'password/a', value: secretText(`${label} again`) }]),
    ({ operator }) => (label === 'one' ? operator.restart() : Promise.resolve()),
    ({ ecalls }) => ecalls.remove(['password/a']),
  ],
})

export default defineScenario({
  name: 'ledger',
  flows: { one: party('one'), two: party('two'), three: party('three') },
  secrets: ['one', 'one again', 'two', 'two again', 'three', 'three again'].map(secretBytes),
})
