/**
 * Envelopes without an enclave: age v1 files (https://age-encryption.org/v1) that any implementation of age opens, with a context
 * and an origin tag where an enclave made them. Layout, limits and refusals: docs/envelope.md.
 *
 * What fails throws a KeyriseError, which `isKeyriseError` tells from a bug.
 */
export { armorReader, armorWriter, decodeArmor, encodeArmor, isArmored } from '../age-armor.js'
export type { Stanza } from '../age-header.js'
export { pull, type ByteSink } from '../age-stream.js'
export type { Bytes } from '../bytes.js'
export type { EnvelopeContext, EnvelopeKind } from '../context.js'
export { isKeyriseError, KeyriseError, type ErrorCode } from '../errors.js'
export { parseFlowId, type FlowId } from '../names.js'
export type { Random } from '../ports.js'
export { x25519PublicKey } from './curves.js'
export {
  describeEnvelope,
  describePayload,
  type EnvelopeDescription,
  type PayloadDescription,
  type RecipientDescription,
} from './describe.js'
export { envelopeOpener, envelopeSealer, type OpenStreamOptions } from './envelope-stream.js'
export {
  envelopeDigest,
  openEnvelope,
  sealEnvelope,
  type CheckOptions,
  type OpenedEnvelope,
  type SealOptions,
} from './envelope.js'
export {
  encodeHybridIdentity,
  encodeHybridRecipient,
  hybridIdentity,
  hybridPublicKey,
  hybridRecipient,
  parseHybridIdentity,
  parseHybridRecipient,
} from './hybrid.js'
export type { LayerPlace } from './layer-stanza.js'
export {
  openCopies,
  openLayers,
  sealCopies,
  sealLayers,
  type Copy,
  type Layers,
  type OpenLayersOptions,
  type SealCopiesOptions,
  type SealLayersOptions,
} from './layers.js'
export type { Origin } from './origin.js'
export { nodeRandom } from './primitives.js'
export {
  encodeX25519Identity,
  encodeX25519Recipient,
  parseX25519Identity,
  parseX25519Recipient,
  scryptIdentity,
  scryptRecipient,
  x25519Identity,
  x25519Recipient,
  type Identity,
  type Recipient,
} from './recipients.js'
export { resealEnvelope, resealer, rewrapHeader, rewrapper, type ResealOptions, type RewrapOptions } from './rewrap.js'
export { Secret } from './secret.js'
export { encodeSshRsaRecipient, parseSshRsaRecipient, sshRsaIdentity, sshRsaRecipient } from './ssh-rsa.js'
