/**
 * How many WebCrypto calls of this thread have not settled. They run in threads of Node’s, and nothing else that the harness
 * waits for does: a simulated world that waits while none is under way has come to rest, and its clock may move on.
 */
let pendingCount = 0
let isWatching = false

export const pendingCryptoCount = (): number => pendingCount

type Method = (this: unknown, ...options: unknown[]) => unknown

/** From now on calls are counted. Safe to repeat. */
export const watchCrypto = (): void => {
  if (isWatching) return
  isWatching = true
  const prototype = Object.getPrototypeOf(globalThis.crypto.subtle) as Record<string, Method>
  for (const [name, { value }] of Object.entries(Object.getOwnPropertyDescriptors(prototype))) {
    if (typeof value === 'function' && name !== 'constructor')
      Object.defineProperty(prototype, name, { value: counted(value as Method), configurable: true, writable: true })
  }
}

const counted = (method: Method): Method =>
  function (...options) {
    const result = method.apply(this, options)
    if (!(result instanceof Promise)) return result
    pendingCount++
    const settled = (): void => {
      pendingCount--
    }
    result.then(settled, settled)
    return result
  }
