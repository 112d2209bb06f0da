import assert from 'node:assert/strict'
import test from 'node:test'
import { launchInProcess } from 'keyrise/faults'
import counter from './counter.enclave.js'

// The module runs in this very thread: set a breakpoint in it, or measure its coverage.

test('it counts upwards, and refuses to count down', async () => {
  await using enclave = await launchInProcess(counter, {})
  assert.equal(await enclave.ecalls.add(2), 2)
  assert.equal(await enclave.ecalls.add(3), 5)
  await assert.rejects(enclave.ecalls.add(-1), { code: 'ERR_APPLICATION', reason: 'negative' })
  await assert.rejects(enclave.ecalls.add(0.5), { code: 'ERR_ARGUMENT_INVALID' })
})

test('a crash loses nothing that was acknowledged', async () => {
  await using enclave = await launchInProcess(counter, {})
  await enclave.ecalls.add(2)
  await enclave.crash()
  assert.equal(await enclave.ecalls.add(1), 3)
})
