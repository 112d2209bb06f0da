import { defineScenario } from '../../../faults/index.js'
import { notebook, secretBytes, secretText } from '../notebook.js'

/** Root keys change while the KMS runs: it rewraps the host’s store beside checkpoints, and in the end one key alone opens all. */
export default defineScenario({
  name: 'online rotation',
  flows: {
    party: {
      enclave: notebook,
      steps: [
        ({ ecalls }) =>
          ecalls.write([
            { name: 'session/old', value: secretText('old'), direct: true },
            { name: 'password/old', value: secretText('old too') },
          ]),
        ({ operator }) => operator.rotateOnline(),
        ({ ecalls }) => ecalls.write([{ name: 'session/new', value: secretText('new'), direct: true }]),
        ({ operator }) => operator.retire(),
        async ({ ecalls, crash }) => {
          await crash()
          await ecalls.write([{ name: 'session/old', value: secretText('newest'), direct: true }])
        },
      ],
    },
  },
  secrets: ['old', 'old too', 'new', 'newest'].map(secretBytes),
})
