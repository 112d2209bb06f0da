import { parentPort } from 'node:worker_threads'
import { TaskRunner, type OpenJob } from './open-tasks.js'

/** Helps the main thread to open one file: gets the job, works until no task is left, and says what failed. */

const TURN_TIMEOUT_MS = 1000

parentPort?.once('message', (job: OpenJob) => {
  using runner = new TaskRunner(job)
  for (let state = runner.step(); state !== 'over'; state = runner.step()) {
    if (state === 'wait') runner.waitForTurn(TURN_TIMEOUT_MS)
  }
  parentPort?.postMessage({ failure: runner.failure })
})
