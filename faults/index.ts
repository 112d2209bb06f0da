/**
 * Second implementations of the interfaces that touch the world, in which what goes wrong is chosen. They wrap the real
 * ones, or stand in for them; production code knows of none.
 */
export { aroundKms, aroundStore, type Around, type WorldCall } from './around.js'
export { faultyKms, faultyStore, type Fault, type FaultPlan, type Moment } from './faulty.js'
export { launchInProcess, type InProcessEnclave, type InProcessOptions } from './in-process.js'
export { startInProcessKms, type InProcessKms } from './in-process-kms.js'
export { KillablePlatform } from './killable-platform.js'
export { MachineStopped, MemoryFileSystem, type FileFault, type FileOperation } from './memory-file-system.js'
export { portPair } from './port-pair.js'
export { openCustody, type Custody, type CustodyOptions } from './open-custody.js'
export { Recorder } from './recorder.js'
export { scanMemory, type MemoryLeak, type MemoryScan } from './scan-memory.js'
export { scanForSecrets, type KnownSecret, type Leak, type ScanResult } from './scan.js'
export { defineScenario, type FlowScenario, type Operator, type Party, type Scenario } from './scenario.js'
export { SeededRandom } from './seeded-random.js'
export { sweep, type SweepOptions, type SweepProgress, type SweepReport } from './sweep.js'
export { SimulatedClock } from './simulated-clock.js'
