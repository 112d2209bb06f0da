import * as v from 'valibot'
import { defineEnclave, ecall } from '../../enclave/index.js'

const entryName = v.pipe(
  v.string(),
  v.regex(/^processed-data\/[0-9]+$/),
  v.transform((name) => name as `processed-data/${number}`),
)

/** What P10 streams payloads to. */
export default defineEnclave({
  name: 'bench',
  svn: 1,
  ecalls: {
    keep: ecall(
      { input: v.object({ name: entryName, bytes: v.instance(Uint8Array) }), output: v.number() },
      ({ flow }, { name, bytes }) => flow.checkpoint({ [name]: { to: 'kms', bytes } }),
    ),
    /** Reads entries through the KMS’s pool. @returns how many bytes of them are authentic. */
    stream: ecall({ input: v.array(entryName), output: v.number() }, async ({ flow }, names) => {
      let sizeBytes = 0
      for await (const item of flow.readBulk(names)) {
        if ('error' in item) throw item.error
        sizeBytes += item.bytes.length
      }
      return sizeBytes
    }),
  },
})
