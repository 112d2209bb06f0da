import { hardenIntrinsics } from '../../enclave/harden.js'

hardenIntrinsics([])
