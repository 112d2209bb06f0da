import type { PlantedFault } from '../fault.js'

const ONLINE = { test: 'kms/online-keys.test' }
const RUNNING = { ...ONLINE, file: 'kms/running-kms.ts', title: 'rewrap' }
const REWRAPS = { ...ONLINE, file: 'kms/store-rewraps.ts', title: 'rewrap' }
const STORED = { file: 'kms/stored-headers.ts', test: 'kms/stored-headers.test' }
const RELOAD = { test: 'kms/control.test', title: 'read again' }
const SERVER = { file: 'kms/server.ts', test: 'kms/tls.test' }
const TOKEN = { file: 'kms/admin-token.ts', test: 'kms/operations.test', title: 'takes a token' }

/** A KMS that runs: its keys change, it rewraps, it is asked by strangers. */
export const OPERATION: readonly PlantedFault[] = [
  {
    ...RUNNING,
    name: 'a rotation leaves no mark of its rewrap',
    find: 'if (isRotation) await this.rewraps.expect()',
    put: '',
  },
  {
    ...RUNNING,
    name: 'a rotation begins no rewrap',
    find: 'if (isRotation) this.rewraps.start()',
    put: 'if (!isRotation) this.rewraps.start()',
  },
  {
    ...ONLINE,
    name: 'sessions go on with a root key that was rotated',
    file: 'kms/running-kms.ts',
    find: 'this.#service.renew()',
    put: '',
    title: 'a rotation while it runs',
  },
  {
    ...REWRAPS,
    name: 'a store that cannot be listed counts as rewrapped',
    find: 'this.#stores.every(({ code }) => code === null)',
    put: 'this.#stores.length > 0',
    title: 'cannot be listed',
  },
  {
    ...REWRAPS,
    name: 'a rewrap that was cut short is not gone on with',
    find: 'await readWhole(fs, join(directory, MARK), 1)) !== undefined',
    put: 'await readWhole(fs, join(directory, MARK), 1)) === null',
  },
  {
    ...REWRAPS,
    name: 'a rewrap leaves no receipt',
    find: "await this.#o.receipts.record('rewrap', { reason, ...(code === null ? {} : { outcome: code }) })",
    put: '',
  },
  {
    ...ONLINE,
    name: 'a rewrap does not ask the policy whose key a flow’s is',
    file: 'kms/policy.ts',
    find: "keyIdOf(policy, name.slice(0, Math.max(0, name.indexOf('/'))) as FlowId)",
    put: 'keyIdOf(policy, name as FlowId)',
    title: 'root keys of their own',
  },
  {
    ...ONLINE,
    name: 'every flow is sealed to the same root key',
    file: 'kms/policy.ts',
    find: 'keys.find(({ flows }) => matchesFlow(flows, flow))?.id ?? ROOT_ID',
    put: '(keys.length > 99 ? flow : ROOT_ID)',
    title: 'root keys of their own',
  },
  {
    ...ONLINE,
    name: 'a KMS starts without a root key that its policy names',
    file: 'kms/open-kms.ts',
    find: 'checkKeysOf(policy, keyring.keys)',
    put: '',
    title: 'root keys of their own',
  },
  {
    ...ONLINE,
    name: 'a key whose time has come is not destroyed at a start',
    file: 'kms/open-kms.ts',
    find: '(kms.nextDueMs ?? Infinity) <= options.clock.nowMs()',
    put: '(kms.nextDueMs ?? Infinity) < 0',
    title: 'a start ends what is due',
  },
  {
    ...ONLINE,
    name: 'a key outlives its time',
    file: 'kms/root-keys.ts',
    find: 'destroyAtMs !== null && destroyAtMs <= nowMs',
    put: 'destroyAtMs !== null && destroyAtMs <= nowMs - 99_000',
    title: 'a start ends what is due',
  },
  {
    ...TOKEN,
    name: 'any admin token will do',
    find: "return equalSecret(sha256(Buffer.from(shown ?? '', 'latin1')), wanted)",
    put: 'return shown !== undefined && wanted.length > 0',
  },
  {
    ...TOKEN,
    name: 'an admin request without a token is answered',
    find: 'if (isPage || isShown(',
    put: 'if (isPage || request.headers.authorization === undefined || isShown(',
  },
  {
    ...SERVER,
    name: 'plain HTTP is served beyond loopback',
    find: "else if (!LOOPBACK.includes(host)) throw new KeyriseError('ERR_ADDRESS_REFUSED', { detail: host })",
    put: '',
    test: 'kms/server.test',
    title: 'only loopback',
  },
  {
    ...SERVER,
    name: 'plain HTTP need not be chosen',
    find: 'else if (!insecureLoopback)',
    put: 'else if (insecureLoopback && LOOPBACK.length === 0)',
  },
  {
    name: 'a share of another length is taken for one of this version',
    file: 'kms/custodians.ts',
    find: '|| bytes.length !== HEAD_BYTES + SHARE_BYTES',
    put: '',
    test: 'kms/custodians.test',
    title: 'bad share',
  },
  {
    name: 'what is too long for a share is read all the same',
    file: 'kms/custodians.ts',
    find: 'claimed.length > SHARE_LENGTH_MAX ? undefined :',
    put: '',
    test: 'kms/custodians.test',
    title: 'bad share',
  },
  {
    ...STORED,
    name: 'a header of a registered store is opened whatever its digest',
    find: 'bytes && equalPublicBytes(sha256(bytes), digest) ? bytes : undefined',
    put: 'bytes',
    title: 'other bytes',
  },
  {
    ...STORED,
    name: 'a session refers to what another flow stores',
    find: '!name.startsWith(`${asked.flow}/`) ||',
    put: '',
    title: 'its own flow',
  },
  {
    ...STORED,
    name: 'a session refers to what is no header',
    find: '|| parseHalfName(name)?.generation === undefined',
    put: '',
    title: 'its own flow',
  },
  {
    name: 'what a registered store lacks is not relayed',
    file: 'enclave/kms-client.ts',
    find: 'const lacking = headers.filter((_, index) => isLacking(opened[index]))',
    put: 'const lacking: typeof headers = this.#store === undefined ? headers : []',
    test: 'enclave/flow.test',
    title: 'M13',
  },
  {
    ...RELOAD,
    name: 'a running KMS takes another policy without its approvals',
    file: 'kms/running-kms.ts',
    find: 'await putInForce(policy, { ledger, receipts: this.receipts, identity: keyring.identity })\n    this.#policy',
    put: 'await Promise.resolve(putInForce)\n    this.#policy',
    test: 'kms/policy-in-force.test',
    title: 'same conditions',
  },
  {
    ...RELOAD,
    name: 'sessions that the policy before let in go on',
    file: 'kms/service.ts',
    find: 'this.#desk.govern(rules.policy)\n    this.#sessions.clear()',
    put: 'this.#desk.govern(rules.policy)',
  },
  {
    ...RELOAD,
    name: 'an unlock brings the policy of the start back',
    file: 'kms/control.ts',
    find: 'this.#policy = policy\n      return digest',
    put: 'return digest',
  },
]
