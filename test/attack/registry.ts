import type { Attack } from './attack.js'
import { COMPARE_ATTACKS } from './attacks/compare.js'
import { COMLINK_ATTACKS } from './attacks/comlink.js'
import { FLAG_ATTACKS } from './attacks/flags.js'
import { HANDLE_ATTACKS } from './attacks/handles.js'
import { INSPECTOR_ATTACKS } from './attacks/inspector.js'
import { OCALL_ATTACKS } from './attacks/ocalls.js'
import { PRELOAD_ATTACKS } from './attacks/preload.js'
import { KMS_THREAD_ATTACKS } from './attacks/kms-threads.js'
import { REPLAY_ATTACKS } from './attacks/replays.js'
import { RELAY_ATTACKS } from './attacks/relay.js'
import { KMS_ATTACKS } from './attacks/kms.js'
import { MEMORY_ATTACKS } from './attacks/memory.js'
import { PROCESS_ATTACKS } from './attacks/processes.js'
import { REALM_ATTACKS } from './attacks/realm.js'
import { REPLACEMENT_ATTACKS } from './attacks/replaced.js'
import { SMUGGLING_ATTACKS } from './attacks/smuggling.js'
import { THREAD_ATTACKS } from './attacks/threads.js'
import { VALUE_ATTACKS } from './attacks/values.js'

/** Every attack, in the order of docs/attack-matrix.md. */
export const ATTACKS: readonly Attack[] = [
  ...INSPECTOR_ATTACKS,
  ...PRELOAD_ATTACKS,
  ...HANDLE_ATTACKS,
  ...THREAD_ATTACKS,
  ...COMLINK_ATTACKS,
  ...VALUE_ATTACKS,
  ...SMUGGLING_ATTACKS,
  ...REALM_ATTACKS,
  ...FLAG_ATTACKS,
  ...OCALL_ATTACKS,
  ...COMPARE_ATTACKS,
  ...KMS_THREAD_ATTACKS,
  ...KMS_ATTACKS,
  ...RELAY_ATTACKS,
  ...REPLAY_ATTACKS,
  ...MEMORY_ATTACKS,
  ...PROCESS_ATTACKS,
  ...REPLACEMENT_ATTACKS,
]
