import { Buffer } from 'node:buffer'
import * as v from 'valibot'
import { defineEnclave, ecall, ocall } from '../../../enclave/index.js'
import { defineScenario, type FlowScenario } from '../../../faults/index.js'
import { secretBytes, secretText } from '../notebook.js'

/** What is streamed: into the enclave, which keeps it in one checkpoint; out of it; and from its host while a call runs. */
const lines = ocall({ input: v.number(), yields: v.string() })

const press = defineEnclave({
  name: 'press',
  svn: 1,
  ocalls: { lines },
  ecalls: {
    take: ecall({ input: v.string(), receives: v.string(), output: v.number() }, async ({ flow, items }, label) => {
      const taken: string[] = []
      for await (const item of items) taken.push(item)
      return flow.checkpoint({ [`session/${label}`]: new Uint8Array(Buffer.from(taken.join())) })
    }),
    ask: ecall({ input: v.number(), output: v.number(), ocalls: { lines } }, async ({ flow, ocalls }, count) => {
      let asked = ''
      for await (const line of ocalls.lines(count)) asked += line
      return flow.checkpoint({ 'session/asked': new Uint8Array(Buffer.from(asked)) })
    }),
    print: ecall({ input: v.undefined(), yields: v.string() }, async function* ({ flow }) {
      for (const { name } of flow.list()) yield `${name} ${String((await flow.read(name))?.length)}`
    }),
  },
})

type Step = FlowScenario<typeof press>['steps'][number]

const take =
  (label: string, count: number): Step =>
  ({ ecalls }) =>
    ecalls.take(label, { items: Array.from({ length: count }, (_, index) => `${secretText(label)} ${index}`) })

const print: Step = async ({ ecalls }) => {
  for await (const _line of ecalls.print(undefined));
}

export default defineScenario({
  name: 'streams',
  flows: {
    party: {
      enclave: press,
      ocalls: { lines: (count: number) => Array.from({ length: count }, (_, index) => `line ${index}\n`) },
      steps: [take('first', 3), print, ({ ecalls }) => ecalls.ask(3), take('second', 2)],
    },
  },
  secrets: ['first', 'second'].map(secretBytes),
})
