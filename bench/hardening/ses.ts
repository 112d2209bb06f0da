import 'ses'

/**
 * `lockdown()` of SES in the place of enclave/harden.ts, which was chosen instead of it (docs/adr/0002-hardening.md): the same
 * function, so that an image can be made with one or the other.
 */
export const hardenIntrinsics = (also: readonly object[]): void => {
  lockdown({ reporting: 'none', errorTrapping: 'none', unhandledRejectionTrapping: 'none', consoleTaming: 'unsafe' })
  for (const object of also) harden(object)
}
