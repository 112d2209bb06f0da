import { collectDefaultMetrics, Counter, Gauge, Histogram, Registry } from 'prom-client'
import type { Answered, Watch } from './http-listener.js'
import type { Gauges } from './open-kms.js'

/** The two listeners of a KMS. */
export type Surface = 'enclaves' | 'admin'

/** Of requests, in seconds: from a small call on a quiet machine to what a client no longer waits for. */
const REQUEST_BUCKETS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 30]
/** Of appends: an fsync takes from a tenth of a millisecond to what a worn disk needs. */
const APPEND_BUCKETS = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5]

/** Of the process, which may hold more than one KMS. */
let ofProcess: Registry | undefined
const processMetrics = (): Registry => {
  if (ofProcess === undefined) collectDefaultMetrics({ register: (ofProcess = new Registry()) })
  return ofProcess
}

/**
 * What a KMS counts and measures, in the text format of Prometheus (version 0.0.4). No label has more values than the code names:
 * nobody can fill the memory with names of flows.
 */
export class Metrics {
  /** Asked at each scrape; undefined while the KMS is sealed. */
  gauges: () => Gauges | undefined = () => undefined
  readonly #registry = new Registry()
  readonly #requests: Counter<'surface' | 'op' | 'code'>
  readonly #seconds: Histogram<'surface' | 'op'>
  readonly #underWay: Gauge<'surface'>
  readonly #appendSeconds: Histogram

  constructor() {
    const registers = [this.#registry]
    this.#requests = new Counter({
      name: 'keyrise_requests_total',
      help: 'Requests that ended. code: ok, an error code, or lost where the connection ended before the answer.',
      labelNames: ['surface', 'op', 'code'],
      registers,
    })
    this.#seconds = new Histogram({
      name: 'keyrise_request_duration_seconds',
      help: 'From the end of a request to the end of its answer.',
      labelNames: ['surface', 'op'],
      buckets: REQUEST_BUCKETS,
      registers,
    })
    this.#underWay = new Gauge({
      name: 'keyrise_requests_under_way',
      help: 'Requests that are being answered.',
      labelNames: ['surface'],
      registers,
    })
    this.#appendSeconds = new Histogram({
      name: 'keyrise_ledger_append_duration_seconds',
      help: 'From an append to the ledger to when it is durable.',
      buckets: APPEND_BUCKETS,
      registers,
    })
    const gauge = (name: string, help: string, value: (gauges: Gauges | undefined) => number): void => {
      const made: Gauge = new Gauge({ name, help, registers, collect: () => made.set(value(this.gauges())) })
    }
    gauge('keyrise_unlocked', '1 while its keyring is open, 0 while it is sealed.', (open) =>
      open === undefined ? 0 : 1,
    )
    gauge('keyrise_sessions', 'Attested sessions that have not expired.', (open) => open?.sessionCount ?? 0)
    gauge('keyrise_receipts', 'Receipts in its log; 0 while it is sealed.', (open) => open?.receiptCount ?? 0)
    gauge('keyrise_pool_queue', 'Parts of requests that wait for a thread.', (open) => open?.queueCount ?? 0)
    gauge('keyrise_ledger_size_bytes', 'Of its log; 0 while it is sealed.', (open) => open?.ledgerSizeBytes ?? 0)
  }

  /** What a listener tells. */
  watch(surface: Surface): Watch {
    return {
      began: () => this.#underWay.inc({ surface }),
      ended: (answered) => this.#ended(surface, answered),
    }
  }

  appended(seconds: number): void {
    this.#appendSeconds.observe(seconds)
  }

  /** All of it, as a scrape reads it. */
  async text(): Promise<string> {
    return Registry.merge([this.#registry, processMetrics()]).metrics()
  }

  #ended(surface: Surface, { note: { op, code }, status, seconds }: Answered): void {
    this.#underWay.dec({ surface })
    this.#requests.inc({ surface, op, code: status === 0 ? 'lost' : (code ?? 'ok') })
    this.#seconds.observe({ surface, op }, seconds)
  }
}
