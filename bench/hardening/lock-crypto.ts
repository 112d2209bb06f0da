import crypto from 'node:crypto'
import { hardenIntrinsics } from '../../enclave/harden.js'

/** As enclave/boot.ts does it. */
hardenIntrinsics([crypto.webcrypto, crypto.webcrypto.subtle, crypto.KeyObject])
Object.freeze(crypto)
