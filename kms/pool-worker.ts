import { move, transferableSymbol, valueSymbol, workerData } from 'piscina'
import { hardenThread } from './harden-thread.js'
import { openShared, resealShared, type OpenTask, type ResealTask } from './reseal.js'
import { unsealItems, type Unsealed, type UnsealKeys, type UnsealTask } from './unseal.js'

/** What `UnsealPool` starts its workers with. KeyObjects have no bytes to wipe: they are freed, and cleared, with the thread. */
const keys = workerData as UnsealKeys
hardenThread(() => undefined)

/** One part of a request. The secrets move to the caller: no copy stays here. */
const unsealPart = (task: UnsealTask): Unsealed => {
  const unsealed = unsealItems(keys, task)
  const movable = {
    get [transferableSymbol]() {
      return unsealed.secrets.buffer
    },
    get [valueSymbol]() {
      return unsealed
    },
  }
  return move(movable) as unknown as Unsealed
}

/** One task after the other, each to its end. */
const work = (task: UnsealTask | OpenTask | ResealTask): unknown => {
  switch (task.kind) {
    case 'open':
      return openShared(task)
    case 'reseal':
      return resealShared(task)
    case 'unwrap':
    case 'stream':
      return unsealPart(task)
  }
}

export default work
