import test from 'ava'
import { verifyEd25519 } from '../../protocol/crypto/keys.js'
import { decodeRoster } from '../../protocol/statements.js'
import { digestOf } from './attested-client.js'
import { IMAGE, OTHER_IMAGE, startInProcess } from './in-process.js'

test('members of a task see each other’s keys, signed, by flow, image name and measurement', async (t) => {
  const { connect, keyring } = await startInProcess()
  const a = await connect()
  await a.launch('a')
  await a.call({ op: 'publish', incarnation: 1, signingKey: digestOf(11), values: {} })
  const b = await connect({ image: OTHER_IMAGE })
  await b.launch('b')
  await b.call({ op: 'publish', incarnation: 1, signingKey: digestOf(12), values: { 'he-key': new Uint8Array([1]) } })
  await b.call({ op: 'publish', incarnation: 1, signingKey: digestOf(12), values: { digest: new Uint8Array([2]) } })
  const stranger = await connect()
  await stranger.launch('c', 'task-2')
  await stranger.call({ op: 'publish', incarnation: 1, signingKey: digestOf(13), values: {} })

  const { roster, signature } = (await a.call({ op: 'roster' })).reply
  t.true(verifyEd25519(keyring.identity, roster, signature))
  t.deepEqual(decodeRoster(roster), {
    task: 'task-1',
    members: [
      { flow: 'a', image: 'party', measurement: IMAGE, signingKey: digestOf(11), published: {} },
      {
        flow: 'b',
        image: 'decryptor',
        measurement: OTHER_IMAGE,
        signingKey: digestOf(12),
        published: { digest: new Uint8Array([2]), 'he-key': new Uint8Array([1]) },
      },
    ],
  } as unknown as ReturnType<typeof decodeRoster>)
})

test('a flow that was only opened publishes nothing and sees nothing', async (t) => {
  const { connect } = await startInProcess()
  const client = await connect()
  await client.open()
  await t.throwsAsync(client.call({ op: 'publish', incarnation: 1, signingKey: digestOf(1), values: {} }), {
    code: 'ERR_REQUEST_INVALID',
  })
  await t.throwsAsync(client.call({ op: 'roster' }), { code: 'ERR_REQUEST_INVALID' })
})

test('a member’s signing key never changes, and what it publishes is bounded', async (t) => {
  const { connect } = await startInProcess()
  const client = await connect()
  await client.launch()
  await client.call({ op: 'publish', incarnation: 1, signingKey: digestOf(1), values: { a: new Uint8Array(1024) } })
  await t.throwsAsync(client.call({ op: 'publish', incarnation: 1, signingKey: digestOf(2), values: {} }), {
    code: 'ERR_LEDGER_CONFLICT',
  })
  await t.throwsAsync(
    client.call({ op: 'publish', incarnation: 1, signingKey: digestOf(1), values: { a: new Uint8Array(1025) } }),
    {
      code: 'ERR_REQUEST_INVALID',
    },
  )
  const many = Object.fromEntries(Array.from({ length: 16 }, (_, index) => [`v${index}`, new Uint8Array(1)]))
  await t.throwsAsync(client.call({ op: 'publish', incarnation: 1, signingKey: digestOf(1), values: many }), {
    code: 'ERR_SIZE_LIMIT',
  })
  await t.throwsAsync(
    client.call({ op: 'publish', incarnation: 1, signingKey: digestOf(1), values: { '../x': new Uint8Array(1) } }),
    {
      code: 'ERR_NAME_INVALID',
    },
  )
})

test('a fenced instance no longer publishes over what its successor did', async (t) => {
  const { connect } = await startInProcess()
  const older = await connect()
  await older.launch('a')
  const newer = await connect()
  await newer.launch('a')
  await newer.call({ op: 'publish', incarnation: 2, signingKey: digestOf(1), values: { key: new Uint8Array([2]) } })
  await t.throwsAsync(
    older.call({ op: 'publish', incarnation: 1, signingKey: digestOf(1), values: { key: new Uint8Array([1]) } }),
    { code: 'ERR_FENCED' },
  )
  const { members } = decodeRoster((await newer.call({ op: 'roster' })).reply.roster)
  t.deepEqual(members[0]?.published['key'], new Uint8Array([2]))
})
