import { defineScenario } from '../../../faults/index.js'
import { notebook, secretBytes, secretText } from '../notebook.js'

/** A keyring opens by custodians’ shares instead of a passphrase, and by a passphrase again. */
export default defineScenario({
  name: 'rekey',
  flows: {
    party: {
      enclave: notebook,
      steps: [
        ({ ecalls }) => ecalls.write([{ name: 'password/a', value: secretText('a') }]),
        ({ operator }) => operator.rekeyAside(),
        ({ operator }) => operator.rekeyAside(),
        ({ operator }) => operator.rekeyAside(),
      ],
    },
  },
  secrets: ['a'].map(secretBytes),
})
