import type { PlantedFault } from '../fault.js'

const VERIFY = { file: 'enclave/verify.ts', test: 'enclave/flow-mirrors.test', title: 'verify' }
const COPIES = { file: 'enclave/copies.ts', test: 'enclave/flow-mirrors.test' }
const OPENER = { file: 'enclave/object-opener.ts', test: 'enclave/flow-mirrors.test' }
const SPARE = { file: 'host/supervisor.ts', test: 'host/spare.test' }
const DRILL = { file: 'cli/drill.ts', test: 'cli/drill.test' }

/** What finds a loss before it matters, or mends it: `flow.verify`, the copies of a store, a spare instance, the drill. */
export const REPAIR: readonly PlantedFault[] = [
  {
    ...VERIFY,
    name: 'verify passes over the flow’s newest epoch file',
    find: 'if (own.name.epoch > ROOT_EPOCH) add(own)',
    put: '',
  },
  { ...VERIFY, name: 'verify passes over the root', find: 'if (behind === undefined) {', put: 'if (false) {' },
  {
    ...VERIFY,
    name: 'verify calls lost what a checkpoint has dropped meanwhile',
    find: 'return this.#heldBy(await settled()).has(key) ?',
    put: 'return true ?',
  },
  {
    ...VERIFY,
    name: 'verify keeps what it finds to itself',
    find: "if (status !== 'intact') this.#options.found(object, status)",
    put: '',
  },
  {
    ...COPIES,
    name: 'a copy with other bytes counts as whole',
    find: 'if (present !== undefined && equalPublicBytes(present, bytes)) continue',
    put: 'if (present !== undefined) continue',
  },
  {
    ...COPIES,
    name: 'a damaged copy is left as it is',
    find: 'if (present !== undefined) await copy.delete(name)',
    put: '',
  },
  {
    ...COPIES,
    name: 'what a copy out of reach may hold counts as lost',
    find: 'return this.#unreadable ?? this.#refusal ?? missing',
    put: 'return this.#refusal ?? missing',
  },
  {
    ...OPENER,
    name: 'an object that is read is not written again where it was missing or damaged',
    find: 'lacking.map((copy) => restoreParts(copy, whole.parts))',
    put: '[]',
  },
  {
    ...SPARE,
    name: 'a spare instance stands by for nothing',
    find: 'this.#takeSpare() ?? this.#launchInstance(false)',
    put: 'this.#launchInstance(false)',
  },
  {
    ...SPARE,
    name: 'a spare instance that died is not replaced',
    find: 'this.#spareTimer = this.#clock.timer(this.#limits.backoffMaxMs, () => this.#prepareSpare())',
    put: '',
  },
  { ...SPARE, name: 'a spare instance outlives its handle', find: 'await spare?.instance.terminate()', put: '' },
  {
    ...DRILL,
    name: 'a drill is content with one whole copy',
    find: "if (copies.every((copy) => copy === 'intact')) return []",
    put: "if (copies.some((copy) => copy === 'intact')) return []",
    title: 'a stale, a damaged',
  },
  {
    ...DRILL,
    name: 'a drill passes over flows that the ledger has never heard of',
    find: '.filter((flow) => !known.has(flow as FlowId) &&',
    put: '.filter((flow) => false &&',
    title: 'an epoch behind',
  },
  {
    ...DRILL,
    name: 'a drill takes the keyring of another KMS for a backup',
    find: '!equalPublicBytes(backup.identity, keyring.identity)',
    put: 'false',
    title: 'a backup made before',
  },
  {
    ...DRILL,
    name: 'a drill takes a backup that lacks a key for whole',
    find: '.filter((key) => !held.has(key))',
    put: '.filter(() => false)',
    title: 'a backup made before',
  },
  {
    ...DRILL,
    name: 'a drill calls a header without a key damage',
    find: 'return opened.length > 0 && !opened.includes(true)',
    put: 'return false',
    title: 'a keyring that lacks',
  },
  {
    ...DRILL,
    name: 'a drill does not ask the policy',
    find: 'options.policy ?? { platforms',
    put: '{ platforms',
    title: 'a policy that no longer',
  },
]
