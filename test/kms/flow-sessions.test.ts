import test from 'ava'
import { FlowSessions } from '../../kms/flow-sessions.js'
import { parseFlowId } from '../../protocol/names.js'
import { startInProcess } from './in-process.js'

test('a flow that restarts in a loop pushes out its own unused sessions, and nobody else’s', (t) => {
  const ended: object[] = []
  const sessions = new FlowSessions<object>((session) => ended.push(session))
  const other = {}
  sessions.add(parseFlowId('b'), other)
  const loop = Array.from({ length: 20 }, () => ({}))
  for (const session of loop) sessions.add(parseFlowId('a'), session)
  t.deepEqual(ended.length, 12)
  t.true(ended.every((session, index) => session === loop[index]))
})

test('a session that has ended by itself leaves its place', (t) => {
  const ended: object[] = []
  const sessions = new FlowSessions<object>((session) => ended.push(session))
  for (let index = 0; index < 100; index++) {
    const session = {}
    sessions.add(parseFlowId('a'), session)
    sessions.delete(session)
  }
  t.deepEqual(ended, [])
})

test('sessions of one flow that are not called any more end when it has opened eight others; one in use stays', async (t) => {
  const { connect, service } = await startInProcess()
  const [idle, used, other] = [await connect(), await connect(), await connect()]
  await idle.open('flow-1')
  await used.open('flow-1')
  await other.open('flow-2')
  for (let count = 0; count < 8; count++) {
    await (await connect()).open('flow-1')
    await used.open('flow-1')
  }
  await t.throwsAsync(idle.open('flow-1'), { code: 'ERR_SESSION_INVALID' })
  await t.notThrowsAsync(used.open('flow-1'))
  await t.notThrowsAsync(other.open('flow-2'))
  t.is(service.sessions.filter(({ flow }) => flow === 'flow-1').length, 8)
})
