import { defineScenario } from '../../../faults/index.js'
import { notebook, secretBytes, secretText } from '../notebook.js'

/** The KMS is backed up, restored over itself and to a place of its own, and its keys are taken out, two versions of them. */
export default defineScenario({
  name: 'backup',
  flows: {
    party: {
      enclave: notebook,
      steps: [
        ({ ecalls }) => ecalls.write([{ name: 'password/a', value: secretText('a') }]),
        ({ operator }) => operator.backUp(),
        ({ operator }) => operator.rotate(),
        ({ operator }) => operator.restoreBackup(),
        ({ operator }) => operator.breakGlass(),
        ({ operator }) => operator.restoreElsewhere(),
        ({ ecalls }) => ecalls.write([{ name: 'session/b', value: secretText('b'), direct: true }]),
      ],
    },
  },
  secrets: ['a', 'b'].map(secretBytes),
})
