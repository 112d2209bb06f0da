/**
 * Values as text, for the console of debug images: Node’s own `inspect` takes much for what it is not, once the realm is hardened.
 * Getters are not run.
 */

const DEPTH_MAX = 4
const ITEM_COUNT_MAX = 100
const WIDTH = 96
const SHORT_LENGTH = 8

/** @param stackOf - the stack of an error, which may be another than `error.stack`. */
export const printValue = (value: unknown, stackOf: (error: Error) => string): string =>
  new Printer(stackOf).print(value, 0)

class Printer {
  readonly #stackOf: (error: Error) => string
  readonly #above: object[] = []

  constructor(stackOf: (error: Error) => string) {
    this.#stackOf = stackOf
  }

  print(value: unknown, depth: number): string {
    switch (typeof value) {
      case 'string':
        return depth === 0 ? value : JSON.stringify(value)
      case 'bigint':
        return `${String(value)}n`
      case 'function':
        return `[Function: ${value.name === '' ? 'anonymous' : value.name}]`
      case 'object':
        return value === null ? 'null' : this.#printObject(value, depth)
      default:
        return Object.is(value, -0) ? '-0' : String(value)
    }
  }

  #printObject(value: object, depth: number): string {
    if (this.#above.includes(value)) return '[Circular]'
    if (depth >= DEPTH_MAX) return `[${nameOf(value)}]`
    this.#above.push(value)
    const text = this.#printParts(value, depth)
    this.#above.pop()
    return text
  }

  #printParts(value: object, depth: number): string {
    const name = nameOf(value)
    if (value instanceof Error) return this.#printError(value, depth)
    if (value instanceof Date) return Number.isNaN(value.getTime()) ? 'Invalid Date' : value.toISOString()
    if (value instanceof RegExp) return String(value)
    if (value instanceof ArrayBuffer) return `${name}(${value.byteLength})`
    if (Array.isArray(value)) return joined('', '[', this.#items(value, value.length, depth), ']')
    if (ArrayBuffer.isView(value) && !(value instanceof DataView)) {
      const items = value as unknown as ArrayLike<number | bigint>
      return joined(`${name}(${items.length})`, '[', this.#items(items, items.length, depth), ']')
    }
    if (value instanceof Set)
      return joined(`${name}(${value.size})`, '{', this.#items([...value], value.size, depth), '}')
    if (value instanceof Map) {
      const entries = [...value].slice(0, ITEM_COUNT_MAX)
      const items = entries.map(([key, item]) => `${this.print(key, depth + 1)} => ${this.print(item, depth + 1)}`)
      return joined(`${name}(${value.size})`, '{', withMore(items, value.size), '}')
    }
    return joined(name === 'Object' ? '' : name, '{', this.#fields(value, depth), '}')
  }

  #printError(error: Error, depth: number): string {
    const fields = this.#fields(error, depth, NOT_FIELDS)
    const cause = Object.getOwnPropertyDescriptor(error, 'cause')?.value as unknown
    if (cause !== undefined) fields.push(`[cause]: ${this.print(cause, depth + 1)}`)
    const stack = this.#stackOf(error)
    return fields.length === 0 ? stack : `${stack} {\n${indented(fields.join(',\n'))}\n}`
  }

  #items(items: ArrayLike<unknown>, count: number, depth: number): string[] {
    const printed = Array.from({ length: Math.min(count, ITEM_COUNT_MAX) }, (_, index) =>
      this.print(items[index], depth + 1),
    )
    return withMore(printed, count)
  }

  #fields(value: object, depth: number, except: readonly string[] = []): string[] {
    const keys = Object.keys(value).filter((key) => !except.includes(key))
    const fields = keys.slice(0, ITEM_COUNT_MAX).map((key) => {
      const descriptor = Object.getOwnPropertyDescriptor(value, key)
      const isValue = descriptor !== undefined && Object.hasOwn(descriptor, 'value')
      return `${IDENTIFIER.test(key) ? key : JSON.stringify(key)}: ${isValue ? this.print(descriptor.value, depth + 1) : '[Getter]'}`
    })
    return withMore(fields, keys.length)
  }
}

/** Of an error: what its stack says, what follows it, and what a code has everywhere. */
const NOT_FIELDS = ['name', 'message', 'stack', 'cause', 'remedy', 'detail', 'reason']
const IDENTIFIER = /^[A-Za-z_$][\w$]*$/

const withMore = (items: string[], count: number): string[] =>
  count > ITEM_COUNT_MAX ? [...items, `… ${count - ITEM_COUNT_MAX} more`] : items

const joined = (name: string, open: string, items: readonly string[], close: string): string => {
  const start = name === '' ? open : `${name} ${open}`
  if (items.length === 0) return start + close
  const line = `${start} ${items.join(', ')} ${close}`
  if (line.length <= WIDTH && !line.includes('\n')) return line
  return `${start}\n${indented(inRows(items).join(',\n'))}\n${close}`
}

/** Short items share lines. */
const inRows = (items: readonly string[]): string[] => {
  const rows: string[] = []
  for (const item of items) {
    const last = rows.at(-1)
    if (last === undefined || item.length > SHORT_LENGTH || last.length + item.length > WIDTH) rows.push(item)
    else rows[rows.length - 1] = `${last}, ${item}`
  }
  return rows
}

const indented = (text: string): string => text.replaceAll(/^/gm, '  ')

/** Of its class, as far as a data property or a hardened prototype says. */
const nameOf = (value: object): string => {
  const prototype = Object.getPrototypeOf(value) as { readonly constructor?: unknown } | null
  const maker = prototype?.constructor
  return typeof maker === 'function' && maker.name !== '' ? maker.name : 'Object'
}
