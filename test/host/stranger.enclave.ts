import { defineEnclave } from '../../enclave/index.js'

/** An image that no policy lists. */
export default defineEnclave({ name: 'stranger', svn: 1, ecalls: {} })
