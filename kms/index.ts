export { createKms, restoreKms, type KmsIdentity, type KmsPlace } from './place.js'
export { openKms, type OpenKms } from './open-kms.js'
export { parsePolicy, type Policy, type PolicyImage } from './policy.js'
export type { KmsEvent } from './service.js'
