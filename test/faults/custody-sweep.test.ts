import test from 'ava'
import { sweep } from '../../faults/index.js'
import backup from '../sweep/scenarios/backup.js'

test('no crash of a backup, a restore or a broken glass loses a key, or leaves a file without its receipt', async (t) => {
  const { violations, crashPoints } = await sweep(backup, { statesMax: 60, isCrashesOnly: true })
  t.deepEqual(violations, [])
  for (const name of ['kept/backup', 'kept/broken-glass', 'spare-custody/keyring.age', 'spare/ledger.log'])
    t.true(
      crashPoints.some((point) => point.startsWith('kms rename ') && point.includes(`→ /${name}`)),
      name,
    )
})
