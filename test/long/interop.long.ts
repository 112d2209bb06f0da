import { defineInterop } from '../crypto/interop-suite.js'

/** Ten thousand random files in each direction, with typage and with the age command. */
defineInterop({ typage: 10_000, hybrid: 10_000, command: 10_000, rsa: 10_000, passphrase: 40 })
