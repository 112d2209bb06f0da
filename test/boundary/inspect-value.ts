/**
 * What is wrong with a value that passed a boundary; undefined where it is what it has to be: null, booleans, finite numbers,
 * strings, Uint8Arrays that are whole ArrayBuffers of their own, plain arrays and plain objects of these. It runs in the enclave
 * under attack, so it uses nothing that a value could bring along.
 */
export const inspectValue = (value: unknown, depth = 0): string | undefined => {
  if (depth > 64) return 'too deep'
  switch (typeof value) {
    case 'undefined':
      return depth === 0 ? undefined : 'undefined within'
    case 'boolean':
    case 'string':
      return undefined
    case 'number':
      return Number.isFinite(value) ? undefined : 'a number that is not finite'
    case 'object':
      return value === null ? undefined : inspectObject(value, depth)
    default:
      return `a ${typeof value}`
  }
}

const inspectObject = (value: object, depth: number): string | undefined => {
  const prototype: unknown = Object.getPrototypeOf(value)
  if (prototype === Uint8Array.prototype) return inspectBytes(value as Uint8Array)
  if (prototype !== Object.prototype && prototype !== Array.prototype) return 'an object of a class'
  if (Array.isArray(value) !== (prototype === Array.prototype)) return 'an array in disguise'
  for (const key of Reflect.ownKeys(value)) {
    const descriptor = Object.getOwnPropertyDescriptor(value, key)
    if (typeof key !== 'string' || key === '__proto__') return `a key ${String(key)}`
    if (descriptor === undefined || !Object.hasOwn(descriptor, 'value')) return 'an accessor'
    if (Array.isArray(value) && key === 'length') continue
    const wrong = inspectValue(descriptor.value, depth + 1)
    if (wrong !== undefined) return wrong
  }
  return Array.isArray(value) && Object.keys(value).length !== value.length ? 'a hole' : undefined
}

const inspectBytes = (value: Uint8Array): string | undefined => {
  const { buffer } = value
  if (!(buffer instanceof ArrayBuffer)) return 'shared memory'
  if ((buffer as { resizable?: boolean }).resizable === true) return 'a buffer that can be resized'
  if (buffer.byteLength !== value.byteLength) return 'a view of a larger buffer'
  return Reflect.ownKeys(value).length === value.length ? undefined : 'bytes with properties'
}
