import { rootKeyObject } from '../protocol/crypto/root-private.js'
import type { Keyring } from './keyring.js'
import { openingKeys } from './root-keys.js'
import type { UnsealKeys } from './unseal.js'

/** What the threads that unseal are given. */
export const unsealKeys = ({ identity, keys }: Pick<Keyring, 'identity' | 'keys'>): UnsealKeys => ({
  authority: identity,
  rootKeys: openingKeys(keys).map((root) => ({ key: root.key, suite: root.suite, privateKey: rootKeyObject(root) })),
})
