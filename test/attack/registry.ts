import type { Attack } from './attack.js'
import { COMLINK_ATTACKS } from './attacks/comlink.js'
import { FLAG_ATTACKS } from './attacks/flags.js'
import { HANDLE_ATTACKS } from './attacks/handles.js'
import { INSPECTOR_ATTACKS } from './attacks/inspector.js'
import { PRELOAD_ATTACKS } from './attacks/preload.js'
import { MEMORY_ATTACKS } from './attacks/memory.js'
import { PROCESS_ATTACKS } from './attacks/processes.js'
import { REALM_ATTACKS } from './attacks/realm.js'
import { VALUE_ATTACKS } from './attacks/values.js'

/** Every attack, in the order of docs/attack-matrix.md. */
export const ATTACKS: readonly Attack[] = [
  ...INSPECTOR_ATTACKS,
  ...PRELOAD_ATTACKS,
  ...HANDLE_ATTACKS,
  ...COMLINK_ATTACKS,
  ...VALUE_ATTACKS,
  ...REALM_ATTACKS,
  ...FLAG_ATTACKS,
  ...MEMORY_ATTACKS,
  ...PROCESS_ATTACKS,
]
