import { ERROR_CODES } from '../protocol/errors.js'
import { KMS_FRAME_SIZE_BYTES_MAX } from '../protocol/limits.js'
import type { AdminRoute, ReplyShape } from './admin-route.js'
import { ADMIN_ROUTES } from './admin-routes.js'
import { hexOf, objectOf, type ObjectSchema, type Schema } from './admin-schema.js'

/** Where the admin surface serves the description. */
export const OPENAPI_PATH = '/openapi.json'

interface Described {
  readonly path: string
  readonly method: 'GET' | 'POST'
  readonly operation: object
}

/** Of both surfaces, as OpenAPI 3.1: docs/openapi.json is this, and so is what the admin surface serves. */
export const openApiDocument = (): object => {
  const described = [...ENCLAVES, ...ADMIN_ROUTES.map(describeRoute), describeSelf()]
  return {
    openapi: '3.1.0',
    info: {
      title: 'Keyrise KMS',
      version: '1',
      description:
        'Two surfaces on listeners of their own: `enclaves`, which carries opaque frames, and `admin`. Every answer has an ' +
        '`x-request-id`; every refusal is the schema `Refusal`.',
      license: { name: 'Apache-2.0', identifier: 'Apache-2.0' },
    },
    servers: [{ url: 'http://127.0.0.1:7600', description: 'the enclaves’ surface where nothing else is told' }],
    tags: [
      { name: 'enclaves', description: 'hosts of enclaves; TLS with client certificates, or plain HTTP on loopback' },
      { name: 'admin', description: 'operators; a unix socket, and an address with TLS where one is told' },
    ],
    paths: Object.fromEntries(
      [...new Set(described.map(({ path }) => path))].map((path) => [
        path,
        Object.fromEntries(
          described
            .filter((other) => other.path === path)
            .map(({ method, operation }) => [method.toLowerCase(), operation]),
        ),
      ]),
    ),
    components: {
      schemas: {
        Refusal: objectOf({
          code: { type: 'string', maxLength: 64, enum: ERROR_CODES },
          detail: { type: 'string', maxLength: 4096 },
          remedy: { type: 'string', maxLength: 4096 },
        }),
      },
      securitySchemes: {
        certificate: { type: 'mutualTLS', description: 'a client certificate of the listener’s authority' },
        token: { type: 'http', scheme: 'bearer', description: 'that of --admin-token-file' },
      },
    },
  }
}

const JSON_TYPE = 'application/json'
const BYTES_TYPE = 'application/octet-stream'
const TEXT_TYPE = 'text/plain'

const REFUSED = {
  description: 'it is refused, and the code says why',
  content: { [JSON_TYPE]: { schema: { $ref: '#/components/schemas/Refusal' } } },
}

const answers = (type: string, schema: object, more: object = {}) => ({
  '200': { description: 'as asked', content: { [type]: { schema } } },
  ...more,
  '4XX': REFUSED,
})

const ENCLAVES_BASE = { tags: ['enclaves'], security: [{ certificate: [] }, {}] }
const READY = objectOf({ ready: { type: 'boolean' } })
const notReady = { '503': { description: 'it is sealed', content: { [JSON_TYPE]: { schema: READY } } } }

const ENCLAVES: readonly Described[] = [
  {
    path: '/v1/exchange',
    method: 'POST',
    operation: {
      ...ENCLAVES_BASE,
      operationId: 'exchange',
      summary: 'A frame in, a frame out: deterministic CBOR (docs/kms.md). A refusal inside a frame is a frame, too.',
      requestBody: {
        required: true,
        content: { [BYTES_TYPE]: { schema: { type: 'string', maxLength: KMS_FRAME_SIZE_BYTES_MAX } } },
      },
      responses: answers(BYTES_TYPE, { type: 'string' }, { '503': REFUSED }),
    },
  },
  {
    path: '/v1/identity',
    method: 'GET',
    operation: {
      ...ENCLAVES_BASE,
      operationId: 'identity',
      summary: 'Who the KMS is, and its root keys.',
      responses: answers(
        JSON_TYPE,
        objectOf({
          identity: hexOf(32),
          keys: {
            type: 'array',
            maxItems: 1024,
            items: objectOf({
              key: { type: 'string', maxLength: 128 },
              recipient: { type: 'string', maxLength: 4096 },
            }),
          },
        }),
        notReady,
      ),
    },
  },
  {
    path: '/healthz',
    method: 'GET',
    operation: {
      ...ENCLAVES_BASE,
      operationId: 'health',
      summary: 'That it runs, sealed or not.',
      responses: answers(JSON_TYPE, objectOf({ status: { type: 'string', maxLength: 8, enum: ['ok'] } })),
    },
  },
  {
    path: '/readyz',
    method: 'GET',
    operation: {
      ...ENCLAVES_BASE,
      operationId: 'readiness',
      summary: 'Whether it answers enclaves.',
      responses: answers(JSON_TYPE, READY, notReady),
    },
  },
]

const ADMIN_BASE = { tags: ['admin'], security: [{ certificate: [] }, { token: [] }, {}] }

const describeSelf = (): Described => ({
  path: OPENAPI_PATH,
  method: 'GET',
  operation: {
    ...ADMIN_BASE,
    operationId: 'openapi',
    summary: 'This description.',
    responses: answers(JSON_TYPE, { type: 'object' }),
  },
})

const describeRoute = (route: AdminRoute): Described => ({
  path: route.path,
  method: route.method,
  operation: {
    ...ADMIN_BASE,
    operationId: [route.method.toLowerCase(), ...route.path.split('/').slice(1)].join('-'),
    summary: route.summary,
    ...describeRequest(route),
    responses: answers(...describeReply(route.reply), { '503': REFUSED }),
  },
})

const describeRequest = ({ method, request, requestSizeBytesMax: maxLength = 64 * 1024 }: AdminRoute): object => {
  if (request === 'none') return {}
  if (request === 'secret')
    return { requestBody: { required: true, content: { [BYTES_TYPE]: { schema: { type: 'string', maxLength } } } } }
  if (method === 'GET') return { parameters: parametersOf(request) }
  return { requestBody: { required: true, content: { [JSON_TYPE]: { schema: request } } } }
}

const parametersOf = ({ properties, required }: ObjectSchema): object[] =>
  Object.entries(properties).map(([name, { description, ...schema }]: [string, Schema]) => ({
    name,
    in: 'query',
    required: required.includes(name),
    ...(description === undefined ? {} : { description }),
    schema,
  }))

const describeReply = (shape: ReplyShape): [type: string, schema: object] => {
  if (shape === 'bytes') return [BYTES_TYPE, { type: 'string' }]
  return shape === 'text' ? [TEXT_TYPE, { type: 'string' }] : [JSON_TYPE, shape]
}
