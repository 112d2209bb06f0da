import { defineScenario } from '../../../faults/index.js'
import { notebook, secretBytes, secretText } from '../notebook.js'

/** Checkpoints of every kind: entries in the epoch file and straight to the KMS, new, replaced and deleted, over several pages. */
export default defineScenario({
  name: 'checkpoint',
  flows: {
    party: {
      enclave: notebook,
      steps: [
        ({ ecalls }) =>
          ecalls.write([
            { name: 'password/kept', value: secretText('kept') },
            { name: 'session/direct', value: secretText('direct'), direct: true },
            { name: 'session/other', value: secretText('other'), direct: true },
            { name: 'session/third', value: secretText('third'), direct: true },
          ]),
        ({ ecalls }) =>
          ecalls.write([
            { name: 'password/changed', value: secretText('changed') },
            { name: 'session/direct', value: secretText('direct again'), direct: true },
            // Eleven pages, each of which a power cut may lose.
            { name: 'session/large', value: 'x'.repeat(44_000), direct: true },
          ]),
        ({ ecalls }) => ecalls.remove(['password/kept', 'session/direct']),
        ({ ecalls }) =>
          ecalls.write([
            { name: 'final-result/model', value: secretText('model') },
            { name: 'final-result/weights', value: 'y'.repeat(44_000) },
          ]),
      ],
    },
  },
  secrets: ['kept', 'direct', 'changed', 'direct again', 'model', 'other', 'third'].map(secretBytes),
})
