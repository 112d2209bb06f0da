import { KeyriseError } from '../protocol/errors.js'

/**
 * The part of JSON Schema (draft 2020-12) that describes what passes through the admin surface: every text has a longest, every
 * list a largest, and objects have no fields but those listed. The same values stand in docs/openapi.json.
 */
export type Schema = TextSchema | NumberSchema | FlagSchema | ListSchema | ObjectSchema

export interface TextSchema {
  readonly type: 'string'
  readonly maxLength: number
  /** Of the whole text: it starts with ^ and ends with $. */
  readonly pattern?: string
  readonly enum?: readonly string[]
  readonly description?: string
}

/** Whole numbers. */
export interface NumberSchema {
  readonly type: 'integer'
  readonly minimum: number
  readonly maximum: number
  readonly description?: string
}

export interface FlagSchema {
  readonly type: 'boolean'
  readonly description?: string
}

export interface ListSchema {
  readonly type: 'array'
  readonly maxItems: number
  readonly items: Schema
  readonly description?: string
}

export interface ObjectSchema {
  readonly type: 'object'
  readonly properties: Readonly<Record<string, Schema>>
  readonly required: readonly string[]
  readonly additionalProperties: false
  readonly description?: string
}

/** What a value of a schema is in TypeScript. */
export type ValueOf<S> = S extends { type: 'string'; enum: readonly (infer T)[] }
  ? T
  : S extends { type: 'string' }
    ? string
    : S extends { type: 'integer' }
      ? number
      : S extends { type: 'boolean' }
        ? boolean
        : S extends { type: 'array'; items: infer I }
          ? readonly ValueOf<I>[]
          : S extends { type: 'object'; properties: infer P; required: readonly (infer R)[] }
            ? { readonly [K in keyof P as K extends R ? K : never]: ValueOf<P[K]> } & {
                readonly [K in keyof P as K extends R ? never : K]?: ValueOf<P[K]>
              }
            : never

/** An object whose fields are all required but those named. */
export const objectOf = <const P extends Readonly<Record<string, Schema>>, const O extends keyof P & string = never>(
  properties: P,
  optional: readonly O[] = [],
) => ({
  type: 'object' as const,
  properties,
  required: Object.keys(properties).filter((key): key is Exclude<keyof P & string, O> => !isOneOf(optional, key)),
  additionalProperties: false as const,
})

const isOneOf = (names: readonly string[], key: string): boolean => names.includes(key)

/** Lower-case hex digits of so many bytes. */
export const hexOf = (sizeBytes: number) => ({
  type: 'string' as const,
  maxLength: sizeBytes * 2,
  pattern: `^[0-9a-f]{${String(sizeBytes * 2)}}$`,
})

/** Checks a decoded value. @param where - its name in messages. @throws {KeyriseError} ERR_REQUEST_INVALID, naming the field. */
export const checkSchema = (schema: Schema, claimed: unknown, where: string): void => {
  const problem = problemOf(schema, claimed, where)
  if (problem !== undefined) throw new KeyriseError('ERR_REQUEST_INVALID', { detail: problem })
}

/** What is wrong with a value, naming the field and never the value; undefined where nothing is. */
export const problemOf = (schema: Schema, claimed: unknown, where: string): string | undefined => {
  switch (schema.type) {
    case 'string':
      return isText(schema, claimed) ? undefined : `${where}: ${describeText(schema)}`
    case 'integer':
      return Number.isSafeInteger(claimed) && Number(claimed) >= schema.minimum && Number(claimed) <= schema.maximum
        ? undefined
        : `${where}: a whole number from ${String(schema.minimum)} to ${String(schema.maximum)}`
    case 'boolean':
      return typeof claimed === 'boolean' ? undefined : `${where}: true or false`
    case 'array':
      if (!Array.isArray(claimed) || claimed.length > schema.maxItems)
        return `${where}: a list of at most ${String(schema.maxItems)}`
      return first(claimed, (item, index) => problemOf(schema.items, item, `${where}[${String(index)}]`))
    case 'object':
      return objectProblem(schema, claimed, where)
  }
}

const isText = ({ maxLength, pattern, enum: values }: TextSchema, claimed: unknown): boolean =>
  typeof claimed === 'string' &&
  claimed.length <= maxLength &&
  (values === undefined || values.includes(claimed)) &&
  (pattern === undefined || new RegExp(pattern, 'u').test(claimed))

const describeText = ({ maxLength, pattern, enum: values }: TextSchema): string => {
  if (values !== undefined) return `one of ${values.join(', ')}`
  return `a text of at most ${String(maxLength)} characters${pattern === undefined ? '' : ` like ${pattern}`}`
}

const objectProblem = (schema: ObjectSchema, claimed: unknown, where: string): string | undefined => {
  if (typeof claimed !== 'object' || claimed === null || Array.isArray(claimed)) return `${where}: an object`
  const fields = claimed as Readonly<Record<string, unknown>>
  if (Object.keys(fields).some((key) => !Object.hasOwn(schema.properties, key)))
    return `${where}: only ${Object.keys(schema.properties).join(', ')}`
  return first(Object.entries(schema.properties), ([key, property]) => {
    if (!Object.hasOwn(fields, key)) return schema.required.includes(key) ? `${where}.${key} is missing` : undefined
    return problemOf(property, fields[key], `${where}.${key}`)
  })
}

const first = <T>(items: readonly T[], problem: (item: T, index: number) => string | undefined): string | undefined => {
  for (const [index, item] of items.entries()) {
    const found = problem(item, index)
    if (found !== undefined) return found
  }
  return undefined
}
