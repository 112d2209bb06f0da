import { request, type IncomingHttpHeaders, type IncomingMessage } from 'node:http'

export interface AdminReply {
  readonly status: number | undefined
  readonly text: string
  readonly json: unknown
  readonly headers: IncomingHttpHeaders
}

interface AdminRequest {
  readonly method?: string
  readonly body?: Uint8Array | string
  readonly headers?: Record<string, string | number>
}

const readText = async (response: IncomingMessage): Promise<string> => {
  let text = ''
  for await (const part of response.setEncoding('utf8') as AsyncIterable<string>) text += part
  return text
}

/** One request over an admin socket, as any client might send it. */
export const askSocket = (socketPath: string, path: string, options: AdminRequest = {}): Promise<AdminReply> =>
  new Promise((resolve, reject) => {
    const { method = 'GET', body, headers } = options
    const sizes = body === undefined ? {} : { 'content-length': Buffer.byteLength(body) }
    request({ socketPath, path, method, agent: false, headers: { ...sizes, ...headers } }, (response) => {
      readText(response).then((text) => {
        const { statusCode: status, headers } = response
        resolve({ status, headers, text, json: text.startsWith('{') ? (JSON.parse(text) as unknown) : {} })
      }, reject)
    })
      .on('error', reject)
      .end(body)
  })
