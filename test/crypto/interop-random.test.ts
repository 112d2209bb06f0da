import { defineInterop } from './interop-suite.js'

/** A few hundred of what `npm run test:long` tries by the ten thousand. */
defineInterop({ typage: 100, hybrid: 60, command: 60, rsa: 25, passphrase: 20 })
