import type { PlantedFault } from '../fault.js'

const SURVEY = { file: 'enclave/survey.ts', test: 'enclave/recovery-freshness.test' }
const CHECKPOINT = { file: 'enclave/checkpoint.ts', test: 'enclave/recovery-crash.test' }
const DESK = { file: 'kms/flow-desk.ts', test: 'kms/freshness.test' }

/** Epochs, incarnations and fences: which state is the newest, and who may move it. */
export const FRESHNESS: readonly PlantedFault[] = [
  {
    ...SURVEY,
    name: 'a head + 1 of another parent is adopted',
    find: '&& equalHeads(epoch.index.parent, head)',
    put: '',
  },
  {
    ...SURVEY,
    name: 'epochs far above the ledger’s are passed over',
    find: 'epoch.epoch > head.epoch && !follows',
    put: 'false',
  },
  {
    ...SURVEY,
    name: 'an incarnation that was never issued is believed',
    find: 'epoch.incarnation > incarnation',
    put: 'false',
  },
  {
    ...SURVEY,
    name: 'a head + 1 of a fenced incarnation is adopted',
    find: '&& claim.incarnation === incarnation',
    put: '',
    test: 'enclave/recovery-incarnations.test',
  },
  {
    ...SURVEY,
    name: 'an object is adopted under another’s name',
    find: 'name.epoch === epoch && name.incarnation === incarnation',
    put: 'true',
  },
  {
    ...SURVEY,
    name: 'an empty store begins anew under a ledger that knows better',
    file: 'enclave/recovery.ts',
    find: 'if (ledger.head !== null) return',
    put: 'if (ledger.head !== null && names.length > 0) return',
  },
  {
    ...SURVEY,
    name: 'a store with epochs begins anew under a ledger without',
    file: 'enclave/birth.ts',
    find: "names.some(({ kind, incarnation }) => kind !== 'root' || incarnation > ledger.incarnation)",
    put: 'false',
  },
  {
    ...CHECKPOINT,
    name: 'a checkpoint is acknowledged before the ledger has it',
    find: 'await this.#options.kms.commit(',
    put: 'void this.#options.kms.commit(',
    test: 'enclave/flow.test',
  },
  {
    ...CHECKPOINT,
    name: 'a checkpoint does not wait for its epoch file',
    find: 'await putObject(store, flow, place, envelope)',
    put: 'void putObject(store, flow, place, envelope).catch(() => undefined)',
    test: 'enclave/recovery-incarnations.test',
    title: 'cases 23, 24',
  },
  {
    ...CHECKPOINT,
    name: 'an epoch file is written before the payloads that it lists',
    find: 'await allSettled(written',
    put: 'void Promise.allSettled(written',
    title: 'a checkpoint killed at any moment',
  },
  {
    ...CHECKPOINT,
    name: 'a checkpoint that failed is not disowned',
    find: "if (this.#doubt?.kind === 'abandoned') await this.#disown()",
    put: '',
    test: 'enclave/recovery-incarnations.test',
  },
  {
    ...CHECKPOINT,
    name: 'an instance goes on after it was fenced',
    find: 'if (isKeyriseError(error, ...FINAL)) this.end(error)',
    put: '',
    test: 'enclave/recovery-incarnations.test',
  },
  {
    ...CHECKPOINT,
    name: 'objects that the state still needs are collected',
    find: '!kept.has(formatObjectName(name))',
    put: 'true',
    test: 'enclave/flow.test',
  },
  {
    ...DESK,
    name: 'the KMS adopts any epoch above the head',
    find: 'adopt.epoch === epochOf(state.head) + 1 &&',
    put: '',
  },
  {
    ...DESK,
    name: 'the KMS adopts an epoch of an incarnation that was never issued',
    find: '&& adopt.incarnation <= state.incarnation',
    put: '',
  },
  { ...DESK, name: 'a commit may skip epochs', find: 'head.epoch !== epochOf(parent) + 1', put: 'false' },
  {
    ...DESK,
    name: 'a commit may have any parent',
    find: "if (!equalHeads(parent, state.head)) return refuse('ERR_LEDGER_CONFLICT')",
    put: '',
  },
  {
    ...DESK,
    name: 'older instances are not fenced',
    find: "incarnation === state.incarnation ? state : refuse('ERR_FENCED')",
    put: 'state',
  },
  {
    ...DESK,
    name: 'a claim compares nothing',
    find: 'incarnation !== state.incarnation || !equalHeads(head, state.head)',
    put: 'false',
  },
  {
    ...DESK,
    name: 'a destroyed flow lives on',
    find: "if (state.destroyed) refuse('ERR_FLOW_DESTROYED')",
    put: '',
  },
  {
    ...DESK,
    name: 'another image opens the flow',
    find: '!equalPublicBytes(state.image, image)',
    put: 'false',
  },
  { ...DESK, name: 'another task opens the flow', find: 'known.task !== task', put: 'false' },
  {
    name: 'the ledger swaps whatever it holds',
    file: 'kms/file-ledger.ts',
    find: 'if (!equalStates(this.#latest.get(flow), expected)) return false',
    put: '',
    test: 'kms/ledger.test',
  },
  {
    name: 'the ledger shows what is not durable yet',
    file: 'kms/file-ledger.ts',
    find: 'return this.#durable.get(flow)',
    put: 'return this.#latest.get(flow)',
    test: 'kms/ledger.test',
  },
  {
    name: 'two processes write to one ledger',
    file: 'kms/log.ts',
    find: 'size !== this.#end.size',
    put: 'false',
    test: 'kms/ledger.test',
  },
  {
    name: 'another KMS’s ledger is taken',
    file: 'kms/file-ledger.ts',
    find: '!equalPublicBytes(contents.identity, identity)',
    put: 'false',
    test: 'kms/ledger.test',
  },
]
