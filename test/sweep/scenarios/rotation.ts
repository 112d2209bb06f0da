import { defineScenario } from '../../../faults/index.js'
import { notebook, secretBytes, secretText } from '../notebook.js'

/** A new root key, everything rewrapped for it, and again, with checkpoints before, between and after. */
export default defineScenario({
  name: 'rotation',
  flows: {
    party: {
      enclave: notebook,
      steps: [
        ({ ecalls }) =>
          ecalls.write([
            { name: 'session/old', value: secretText('old'), direct: true },
            { name: 'password/old', value: secretText('old too') },
          ]),
        ({ operator }) => operator.rotate(),
        ({ ecalls }) => ecalls.write([{ name: 'session/new', value: secretText('new'), direct: true }]),
        ({ operator }) => operator.rewrap(),
        ({ ecalls }) => ecalls.remove(['session/old']),
        async ({ operator, crash }) => {
          await operator.rotate()
          await crash()
          await operator.rewrap()
        },
        ({ ecalls }) => ecalls.write([{ name: 'session/new', value: secretText('newest'), direct: true }]),
      ],
    },
  },
  secrets: ['old', 'old too', 'new', 'newest'].map(secretBytes),
})
