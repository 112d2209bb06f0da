import test from 'ava'
import { CancelSource } from '../../protocol/cancel.js'

test('a signal is aborted once, with ERR_CANCELLED, and tells its listeners in order', (t) => {
  const source = new CancelSource()
  const { signal } = source
  const heard: string[] = []
  const gone = () => heard.push('gone')
  signal.addEventListener('abort', () => heard.push('first'))
  signal.addEventListener('abort', gone)
  signal.addEventListener('abort', () => heard.push('second'))
  signal.removeEventListener('abort', gone)
  t.notThrows(() => signal.throwIfAborted())
  t.deepEqual([signal.aborted, signal.reason], [false, undefined])
  source.cancel()
  source.cancel()
  t.deepEqual(heard, ['first', 'second'])
  t.like(signal.reason, { code: 'ERR_CANCELLED' })
  t.throws(() => signal.throwIfAborted(), { code: 'ERR_CANCELLED' })
})

test('a signal that is asked for after the call was given up is aborted from the start', (t) => {
  const source = new CancelSource()
  source.cancel()
  t.true(source.signal.aborted)
  t.is(source.signal, source.signal)
})
