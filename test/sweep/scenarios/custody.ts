import { defineScenario } from '../../../faults/index.js'
import { notebook, secretBytes, secretText } from '../notebook.js'

/** The keyring’s file is replaced, by a copy and by one with a new key, and the KMS started from it each time. */
export default defineScenario({
  name: 'custody',
  flows: {
    party: {
      enclave: notebook,
      steps: [
        ({ ecalls }) => ecalls.write([{ name: 'password/a', value: secretText('a') }]),
        ({ operator }) => operator.restore(),
        ({ operator }) => operator.rotate(),
        ({ operator }) => operator.restore(),
        ({ ecalls }) => ecalls.write([{ name: 'session/b', value: secretText('b'), direct: true }]),
      ],
    },
  },
  secrets: ['a', 'b'].map(secretBytes),
})
