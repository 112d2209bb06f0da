import { defineScenario } from '../../../faults/index.js'
import { notebook, secretBytes, secretText } from '../notebook.js'

/** Instances that die between their checkpoints, and a flow of another party beside. */
export default defineScenario({
  name: 'recovery',
  flows: {
    party: {
      enclave: notebook,
      steps: [
        ({ ecalls }) => ecalls.write([{ name: 'password/a', value: secretText('a') }]),
        async ({ ecalls, crash }) => {
          await crash()
          await ecalls.write([{ name: 'password/a', value: secretText('a again') }])
        },
        async ({ ecalls, crash }) => {
          await crash()
          await ecalls.write([{ name: 'session/b', value: secretText('b'), direct: true }])
          await crash()
        },
      ],
    },
    other: {
      enclave: notebook,
      steps: [
        ({ ecalls }) => ecalls.write([{ name: 'session/c', value: secretText('c'), direct: true }]),
        ({ ecalls }) => ecalls.remove(['session/c']),
      ],
    },
  },
  secrets: ['a', 'a again', 'b', 'c'].map(secretBytes),
})
