/** How `node` is started for an enclave: what is denied to it, by version. docs/threat-model.md has the table. */

/** The permission model was experimental on Node 20. It also keeps the debugger shut, whatever signal asks for it. */
const permissionFlag = (major: number): string => (major >= 22 ? '--permission' : '--experimental-permission')

/** Node’s own flags. Nothing is allowed by name: no file, child process, worker, addon, WASI or debugger. */
export const nodeFlags = (version: string): readonly string[] => {
  const [major = 0, minor = 0] = version.split('.').map(Number)
  // Since 22.14 and 23.7.
  const knowsSigusr1 = major > 23 || (major === 22 && minor >= 14) || (major === 23 && minor >= 7)
  return [
    permissionFlag(major),
    ...(knowsSigusr1 ? ['--disable-sigusr1'] : []),
    '--no-addons',
    '--no-warnings',
    '--disable-proto=delete',
    // As a worker's resourceLimits.
    '--max-old-space-size=1024',
    // What comes on the standard input is a script, as it stands.
    '--input-type=commonjs',
    '-',
  ]
}
