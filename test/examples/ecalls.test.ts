import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import test, { type ExecutionContext } from 'ava'
import type account from '../../examples/ecalls/account.enclave.js'
import { aroundKms, aroundStore, KillablePlatform, type Around } from '../../faults/index.js'
import {
  buildImage,
  isKeyriseError,
  launch,
  MemoryStore,
  SimulatedPlatform,
  type EnclaveHandle,
  type Image,
  type Isolation,
} from '../../host/index.js'
import { startKms, type EmbeddedKms } from '../../kms/index.js'

/** The calls of docs/ecalls.md, at both levels of isolation, with a real KMS and kills. */

const directory = await mkdtemp(join(tmpdir(), 'keyrise-account-'))
let image: Image<typeof account>
let machine: SimulatedPlatform
let kms: EmbeddedKms

test.before(async () => {
  image = await buildImage(fileURLToPath(new URL('../../examples/ecalls/account.enclave.js', import.meta.url)))
  machine = await SimulatedPlatform.open(join(directory, 'machine'))
  kms = await startKms({
    directory: join(directory, 'kms'),
    passphrase: new TextEncoder().encode('correct horse'),
    policy: { platforms: [machine.publicKey], images: [{ name: 'account', measurement: image.measurement }] },
    workFactor: 4,
  })
})
test.after.always(async () => {
  await kms.close()
  await rm(directory, { recursive: true })
})

interface Account {
  readonly handle: EnclaveHandle<typeof account>
  readonly platform: KillablePlatform
  readonly flow: string
  /** How many of the host’s own streams have ended. */
  readonly endedCount: () => number
}

let flowCount = 0
const open = async (isolation: Isolation, around?: (account: { kill: () => Promise<number> }) => Around) => {
  const platform = new KillablePlatform(machine)
  const flow = `account-${flowCount++}`
  const wrap = around?.({ kill: () => platform.kill(flow) })
  const store = new MemoryStore()
  let ended = 0
  const handle = await launch({
    image,
    platform,
    isolation,
    flow,
    store: wrap === undefined ? store : aroundStore(store, wrap),
    kms: wrap === undefined ? kms : aroundKms(kms, wrap),
    ocalls: {
      rates: function* () {
        try {
          for (let day = 1; ; day++) yield day
        } finally {
          ended++
        }
      },
    },
  })
  return { handle, platform, flow, endedCount: () => ended } satisfies Account
}

const deposit = (handle: Account['handle'], ...amounts: readonly number[]) =>
  handle.ecalls.post(undefined, { items: amounts.map((amount) => ({ amount, note: '' })) })

/** Repeats a keyed withdrawal until it is answered. */
const withdraw = async ({ handle }: Account, amount: number, idempotencyKey: string): Promise<number> => {
  for (;;) {
    try {
      return await handle.ecalls.withdraw(amount, { idempotencyKey })
    } catch (error) {
      if (!isKeyriseError(error, 'ERR_ENCLAVE_LOST')) throw error
    }
  }
}

/** Kills the enclave before the operation of the world that `next` says, counted from when it is set. */
const killer = () => {
  const plan = { next: Infinity, isKilled: false }
  const around =
    ({ kill }: { kill: () => Promise<number> }): Around =>
    async (_call, work) => {
      if (plan.next-- !== 0) return work()
      plan.isKilled = true
      await kill()
      return work()
    }
  return { plan, around }
}

const everyWithdrawalOnce = async (t: ExecutionContext, isolation: Isolation, step: number): Promise<number> => {
  const { plan, around } = killer()
  const account = await open(isolation, around)
  let balance = await deposit(account.handle, 1000)
  let killCount = 0
  for (let operation = 0; ; operation += step) {
    Object.assign(plan, { next: operation, isKilled: false })
    t.is(await withdraw(account, 1, `withdrawal-${operation}`), --balance, `killed before operation ${operation}`)
    plan.next = Infinity
    if (!plan.isKilled) break
    killCount++
    // Long after the crash it is still the same answer, and no second effect.
    t.is(await withdraw(account, 1, `withdrawal-${operation}`), balance)
  }
  await account.handle.close()
  return killCount
}

for (const isolation of ['worker', 'process'] as const) {
  test(`items stream in, and out again from a stream of the host’s own (${isolation})`, async (t) => {
    const account = await open(isolation)
    const amounts = Array.from({ length: 500 }, (_, index) => index)
    t.is(await deposit(account.handle, ...amounts), 124_750)
    const values: number[] = []
    for await (const value of account.handle.ecalls.convert('EUR')) {
      values.push(value)
      if (values.length === 200) break
    }
    t.deepEqual(
      values,
      Array.from({ length: 200 }, (_, index) => 124_750 * (index + 1)),
    )
    // Who ends a stream early ends what it was made from, in the host too.
    while (account.endedCount() === 0) await setTimeout(10)
    t.is(account.handle.switchless.fee(150), 2)
    await t.throwsAsync(account.handle.ecalls.withdraw(200_000), { code: 'ERR_APPLICATION' })
    await account.handle.close()
  })

  test(`a stream whose enclave is killed ends with ERR_ENCLAVE_LOST, and the next one serves (${isolation})`, async (t) => {
    const account = await open(isolation)
    await deposit(account.handle, 1)
    const stream = account.handle.ecalls.convert('EUR')
    t.is((await stream.next()).value, 1)
    t.is(await account.platform.kill(account.flow), 1)
    await t.throwsAsync(
      async () => {
        for await (const _ of stream);
      },
      { code: 'ERR_ENCLAVE_LOST' },
    )
    t.is(await deposit(account.handle, 4), 5)
    await account.handle.close()
  })
}

test('a withdrawal with a key, killed before any operation of store or KMS, happens once, with one answer', async (t) => {
  t.true((await everyWithdrawalOnce(t, 'worker', 1)) >= 3)
})

test('the same in a process', async (t) => {
  t.true((await everyWithdrawalOnce(t, 'process', 2)) >= 2)
})
