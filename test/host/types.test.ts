import test from 'ava'
import * as v from 'valibot'
import { defineEnclave, ecall, ocall } from '../../enclave/define.js'
import { launch, type EnclaveHandle, type Image, type LaunchOptions } from '../../host/index.js'

const Point = v.object({ x: v.number() })
const log = ocall({ input: v.string(), output: v.boolean() })
const quiet = defineEnclave({
  name: 'quiet',
  svn: 1,
  ecalls: { move: ecall({ input: Point, output: Point }, (_context, point) => point) },
})
const loud = defineEnclave({
  name: 'loud',
  svn: 1,
  ecalls: { move: ecall({ input: Point, output: Point, ocalls: { log } }, (_context, point) => point) },
  ocalls: { log },
})

declare const quietOptions: LaunchOptions<typeof quiet>
declare const loudOptions: LaunchOptions<typeof loud>

/** Compiled, never run: each marked line must fail to compile. */
const compiled = async (quietImage: Image<typeof quiet>, loudImage: Image<typeof loud>): Promise<unknown> => {
  const rest = { platform: quietOptions.platform, store: quietOptions.store, kms: quietOptions.kms, flow: 'flow-1' }
  const handle: EnclaveHandle<typeof quiet> = await launch({ image: quietImage, ...rest })
  const { x }: { x: number } = await handle.ecalls.move({ x: 1 })
  // @ts-expect-error A wrong argument.
  await handle.ecalls.move({ x: String(x) })
  // @ts-expect-error No argument.
  await handle.ecalls.move()
  // @ts-expect-error No such ECALL.
  const jump: unknown = handle.ecalls.jump
  // @ts-expect-error The result is no string.
  const text: string = await handle.ecalls.move({ x: 1 })
  // @ts-expect-error The image declares an OCALL.
  await launch({ image: loudImage, ...rest })
  // @ts-expect-error It answers with a boolean.
  await launch({ image: loudImage, ...rest, ocalls: { log: () => text } })
  await launch({ image: loudImage, ...rest, ocalls: { log: (line) => line.length > 0 } })
  await launch({ image: loudImage, ...rest, ocalls: { log: async (line) => Promise.resolve(line === '') } })
  await launch(loudOptions)
  return jump
}

test('the host’s calls are typed by the enclave’s definition', (t) => {
  t.deepEqual([quiet.name, loud.name, typeof compiled], ['quiet', 'loud', 'function'])
})
