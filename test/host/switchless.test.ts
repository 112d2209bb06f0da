import test, { type ExecutionContext } from 'ava'
import { launch, MemoryStore, type EnclaveHandle, type LaunchLimits } from '../../host/index.js'
import { ISOLATIONS, type Isolation } from '../../protocol/configuration.js'
import { buildStubImage, Host, launchTarget, outcome, withPlatform } from '../enclave/target.js'
import type definition from '../enclave/switchless.enclave.js'
import { echoKms } from './scripted-platform.js'

const image = buildStubImage<typeof definition>('switchless.enclave')

const withEnclave = async (
  t: ExecutionContext,
  isolation: Isolation,
  use: (handle: EnclaveHandle<typeof definition>) => Promise<void> | void,
  limits: Partial<LaunchLimits> = {},
): Promise<void> => {
  await withPlatform(async (platform) => {
    const options = { image: await image, platform, store: new MemoryStore(), kms: echoKms, flow: 'flow', isolation }
    await using handle = await launch({ ...options, limits })
    await use(handle)
  })
  t.pass()
}

for (const isolation of ISOLATIONS) {
  test.serial(`a switchless call answers before the next line runs (${isolation})`, async (t) => {
    await withEnclave(t, isolation, ({ switchless }) => {
      for (let count = 1; count <= 1000; count++) t.is(switchless.increment(), count)
      t.deepEqual(switchless.echo(new Uint8Array([1, 2, 3])), new Uint8Array([1, 2, 3]))
    })
  })

  test.serial(`values of every size cross, through shared memory or beside it (${isolation})`, async (t) => {
    await withEnclave(t, isolation, ({ switchless }) => {
      for (const size of [0, 1, 64, 65, 16_384, 16_385, 100_000, 3_000_000]) {
        const bytes = new Uint8Array(size).fill(size & 0xff)
        t.true(Buffer.from(switchless.echo(bytes)).equals(bytes))
      }
    })
  })

  test.serial(`other calls settle while one blocks, and calls of both kinds mix (${isolation})`, async (t) => {
    await withEnclave(t, isolation, async ({ ecalls, switchless }) => {
      const before = Array.from({ length: 300 }, (_, index) => ecalls.echo(new Uint8Array([index & 0xff])))
      const large = ecalls.echo(new Uint8Array(200_000))
      t.is(switchless.increment(), 1)
      const after = ecalls.increment()
      // In whatever order: calls that are in flight together have none.
      t.is(switchless.increment() + (await after), 5)
      t.is((await large).length, 200_000)
      for (const [index, answer] of (await Promise.all(before)).entries())
        t.deepEqual(answer, new Uint8Array([index & 0xff]))
    })
  })

  test.serial(
    `a switchless call behind more calls than the ring holds is made in its turn (${isolation})`,
    async (t) => {
      await withEnclave(t, isolation, async ({ ecalls, switchless }) => {
        // 2 MB, in a ring of 256 KiB: most of it waits on the host's side when this thread begins to block.
        const before = Array.from({ length: 200 }, (_, index) => ecalls.echo(new Uint8Array(10_000).fill(index)))
        t.is(switchless.increment(), 1)
        for (const [index, answer] of (await Promise.all(before)).entries()) t.is(answer[9_999], index)
      })
    },
  )

  test.serial(
    `what is not declared, or does not answer at once, is refused, and the enclave serves on (${isolation})`,
    async (t) => {
      await withEnclave(t, isolation, ({ switchless }) => {
        const untyped = switchless as unknown as Record<string, (input?: unknown) => unknown>
        t.deepEqual(Object.keys(switchless).includes('plain'), false)
        t.throws(() => switchless.later(), { code: 'ERR_SWITCHLESS' })
        t.throws(() => switchless.checkedLater(1), { code: 'ERR_SWITCHLESS' })
        t.throws(() => switchless.fail(), { code: 'ERR_ENCLAVE_FAILED' })
        t.throws(() => untyped['echo']?.(7), { code: 'ERR_ARGUMENT_INVALID' })
        t.throws(() => untyped['echo']?.(new Map()), { code: 'ERR_VALUE_UNSUPPORTED' })
        t.throws(() => switchless.echo(new Uint8Array(65 * 1024 * 1024)), { code: 'ERR_SIZE_LIMIT' })
        t.is(switchless.increment(), 1)
      })
    },
  )

  test.serial(`a call that says it is switchless, of an ECALL that is not, is refused (${isolation})`, async (t) => {
    await withPlatform(async (platform) => {
      const host = new Host(launchTarget(platform, await image, { isolation }))
      await host.ready()
      const message = { type: 'APPLY', path: ['plain'], argumentList: [], switchless: true }
      t.is(outcome(await host.raw(message)), 'ERR_SWITCHLESS')
      t.is(await host.call('plain'), 0)
      await host.instance.terminate()
    })
  })

  test.serial(`an enclave that does not answer in time fails the call at its deadline (${isolation})`, async (t) => {
    await withEnclave(
      t,
      isolation,
      ({ switchless }) => void t.throws(() => switchless.spin(), { code: 'ERR_DEADLINE' }),
      {
        callDeadlineMs: 200,
      },
    )
  })

  test.serial(
    `an enclave that dies while its caller blocks is lost, is launched again, and serves (${isolation})`,
    async (t) => {
      await withEnclave(t, isolation, async ({ ecalls, switchless }) => {
        t.throws(() => switchless.quit(), { code: 'ERR_ENCLAVE_LOST' })
        const lost = ecalls.increment()
        // It may have been made before the loss was noticed.
        await lost.catch((error: unknown) => t.like(error, { code: 'ERR_ENCLAVE_LOST' }))
        t.true((await ecalls.increment()) <= 2)
      })
    },
  )

  test.serial(`a closed enclave takes no switchless call (${isolation})`, async (t) => {
    await withPlatform(async (platform) => {
      const handle = await launch({
        image: await image,
        platform,
        store: new MemoryStore(),
        kms: echoKms,
        flow: 'flow',
        isolation,
      })
      await handle.close()
      t.throws(() => handle.switchless.increment(), { code: 'ERR_ENCLAVE_CLOSED' })
    })
  })
}
