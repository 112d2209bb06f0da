import { defineScenario } from 'keyrise/faults'
import counter from './counter.enclave.js'

/** What is asked of the enclave, for `keyrise sweep` to cut short at every operation. */
export default defineScenario({
  name: 'counter',
  flows: {
    counter: {
      enclave: counter,
      steps: [({ ecalls }) => ecalls.add(2), ({ ecalls }) => ecalls.add(3)],
    },
  },
})
