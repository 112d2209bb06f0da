import { AUTHENTICITY } from './faults/authenticity.js'
import { CUSTODY } from './faults/custody.js'
import { DURABILITY } from './faults/durability.js'
import { FRESHNESS } from './faults/freshness.js'
import { INTEGRITY } from './faults/integrity.js'
import { OPERATION } from './faults/operation.js'
import { RECEIPTS } from './faults/receipts.js'
import { REPAIR } from './faults/repair.js'
import type { PlantedFault } from './fault.js'

export const FAULTS: readonly PlantedFault[] = [
  ...DURABILITY,
  ...INTEGRITY,
  ...FRESHNESS,
  ...AUTHENTICITY,
  ...RECEIPTS,
  ...CUSTODY,
  ...OPERATION,
  ...REPAIR,
]
