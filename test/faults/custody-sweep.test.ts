import test from 'ava'
import { sweep } from '../../faults/index.js'
import backup from '../sweep/scenarios/backup.js'
import rekey from '../sweep/scenarios/rekey.js'

test('no crash of a backup, a restore or a broken glass loses a key, or leaves a file without its receipt', async (t) => {
  const { violations, crashPoints } = await sweep(backup, { statesMax: 60, isCrashesOnly: true })
  t.deepEqual(violations, [])
  for (const name of ['kept/backup', 'kept/broken-glass', 'spare-custody/keyring.age', 'spare/ledger.log'])
    t.true(
      crashPoints.some((point) => point.startsWith('kms rename ') && point.includes(`→ /${name}`)),
      name,
    )
})

test('no crash of a rekey leaves a keyring that nothing there opens', async (t) => {
  const { violations, crashPoints } = await sweep(rekey, { statesMax: 60, isCrashesOnly: true })
  t.deepEqual(violations, [])
  for (const name of ['keyring.age', 'keyring.age.custodians', 'keyring.age.custodians-next'])
    t.true(
      crashPoints.some((point) => point.startsWith('kms rename ') && point.includes(`→ /shared-custody/${name} `)),
      name,
    )
})
