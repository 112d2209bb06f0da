import { move, transferableSymbol, valueSymbol, workerData } from 'piscina'
import { hardenThread } from './harden-thread.js'
import { openShared, resealShared, type OpenTask, type ResealTask } from './reseal.js'
import { openItems, prepareKeys, type OpenedItems, type UnsealKeys } from './unseal.js'
import { headersOf, type UnsealPart } from './unseal-part.js'

/** What `UnsealPool` starts its workers with. KeyObjects have no bytes to wipe: they are freed, and cleared, with the thread. */
const identities = prepareKeys(workerData as UnsealKeys)
hardenThread()

/** One part of a request. The secrets move to the caller: no copy stays here. */
const openPart = (part: UnsealPart): OpenedItems => {
  const opened = openItems(identities, headersOf(part), part)
  const movable = {
    get [transferableSymbol]() {
      return opened.secrets.buffer
    },
    get [valueSymbol]() {
      return opened
    },
  }
  return move(movable) as unknown as OpenedItems
}

/** One task after the other, each to its end. */
const work = (task: UnsealPart | OpenTask | ResealTask): unknown => {
  switch (task.kind) {
    case 'open':
      return openShared(task)
    case 'reseal':
      return resealShared(task)
    case 'unwrap':
    case 'stream':
      return openPart(task)
  }
}

export default work
