import { hardenIntrinsics } from './ses.js'

hardenIntrinsics([])
