import { defineScenario } from '../../../faults/index.js'
import { newerNotebook, notebook, secretBytes, secretText } from '../notebook.js'

/** A newer image takes the flow over, with a hook that renames and leaves out; then it goes on with it. */
export default defineScenario({
  name: 'migration',
  flows: {
    party: {
      enclave: notebook,
      successor: { enclave: newerNotebook, step: 3 },
      steps: [
        ({ ecalls }) =>
          ecalls.write([
            { name: 'password/old', value: secretText('old') },
            { name: 'session/direct', value: secretText('direct'), direct: true },
          ]),
        ({ ecalls }) => ecalls.write([{ name: 'password/kept', value: secretText('kept') }]),
        () => Promise.resolve(),
        ({ ecalls }) => ecalls.write([{ name: 'password/new', value: secretText('new') }]),
      ],
    },
  },
  secrets: ['old', 'direct', 'kept', 'new'].map(secretBytes),
})
