import { defineEnclave, ecall, ocall, refuse, type Flow } from 'keyrise/enclave'
import * as v from 'valibot'

const Entry = v.object({ amount: v.number(), note: v.string() })
const rates = ocall({ input: v.string(), yields: v.number(), limits: { perSecondMax: 10, deadlineMs: 5000 } })

const balanceOf = async (flow: Flow): Promise<number> => {
  const bytes = await flow.read('final-result/balance')
  return bytes === undefined ? 0 : Number(new TextDecoder().decode(bytes))
}
const store = (flow: Flow, balance: number) =>
  flow.checkpoint({ 'final-result/balance': new TextEncoder().encode(String(balance)) })

export default defineEnclave({
  name: 'account',
  svn: 1,
  ocalls: { rates },
  refusals: { 'no-funds': 'There is not that much in the account' },
  ecalls: {
    // One argument, one reply.
    withdraw: ecall(
      { input: v.number(), output: v.number(), limits: { inFlightMax: 16 } },
      async ({ flow }, amount) => {
        const balance = (await balanceOf(flow)) - amount
        if (balance < 0) refuse('no-funds')
        await store(flow, balance)
        return balance
      },
    ),
    // The host streams entries in.
    post: ecall({ input: v.undefined(), receives: Entry, output: v.number() }, async ({ flow, items }) => {
      let balance = await balanceOf(flow)
      for await (const { amount } of items) balance += amount
      await store(flow, balance)
      return balance
    }),
    // It asks the host for a stream, and streams its answer out.
    convert: ecall(
      { input: v.string(), yields: v.number(), ocalls: { rates } },
      async function* ({ flow, ocalls, signal }, currency) {
        const balance = await balanceOf(flow)
        for await (const rate of ocalls.rates(currency)) {
          signal.throwIfAborted()
          yield balance * rate
        }
      },
    ),
    // It may be called synchronously too.
    fee: ecall({ input: v.number(), output: v.number(), switchless: true }, (_, amount) => Math.ceil(amount / 100)),
  },
})
