import { defineInterop } from './interop-suite.js'

/** A few hundred of what `npm run test:long` tries by the ten thousand. */
defineInterop({ typage: 200, hybrid: 100, command: 150, rsa: 50, passphrase: 20 })
