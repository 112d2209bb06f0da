/**
 * Where Piscina’s workers begin. CommonJS, because Piscina loads its file by `require`, and Node 20 aborts the whole process
 * when a worker is terminated while it requires an ES module; one that it imports may be terminated at any moment.
 */
const loading = import('./pool-worker.js')

const work = async (task: unknown): Promise<unknown> => (await loading).default(task as never)

export = work
