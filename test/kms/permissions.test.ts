import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Worker } from 'node:worker_threads'
import test from 'ava'
import { permissionFlags } from '../../kms/permissions.js'
import { makePlace } from './served.js'

/** What code in a thread can do: each entry is true when it worked. */
const PROBE = `
  const { parentPort, workerData } = require('node:worker_threads')
  const works = (attempt) => { try { attempt(); return true } catch { return false } }
  const fs = require('node:fs')
  parentPort.postMessage({
    readsPasswords: works(() => fs.readFileSync('/etc/passwd')),
    readsBeside: works(() => fs.readFileSync(workerData.beside)),
    writesBeside: works(() => fs.writeFileSync(workerData.beside, '')),
    writesInside: works(() => fs.writeFileSync(workerData.inside, '')),
    writesItsCode: works(() => fs.writeFileSync(workerData.code, '')),
    runsCommands: works(() => require('node:child_process').execFileSync('/bin/true')),
    attachesInspector: works(() => { const { Session } = require('node:inspector'); new Session().connectToMainThread() }),
    inspectsWorkers: works(() => { const { Session } = require('node:inspector'); const s = new Session(); s.connect(); s.post('NodeWorker.enable', { waitForDebuggerOnStart: false }) }),
    startsWorkers: works(() => new (require('node:worker_threads').Worker)('0', { eval: true }).terminate()),
    environment: Object.keys(process.env).length,
  })`

const probe = (
  execArgv: string[] | undefined,
  paths: { beside: string; inside: string; code: string },
): Promise<Record<string, unknown>> =>
  new Promise((resolve, reject) => {
    const worker = new Worker(PROBE, {
      eval: true,
      workerData: paths,
      ...(execArgv === undefined ? {} : { execArgv, env: {} }),
    })
    worker.once('message', resolve).once('error', reject)
  })

test('a thread with our flags reads its code, writes its folders, and nothing else; without them all of it works', async (t) => {
  const { root, directory } = await makePlace(t)
  const paths = { beside: join(root, 'beside'), inside: join(directory, 'inside'), code: join(root, 'code') }
  await Promise.all(Object.values(paths).map((path) => writeFile(path, '')))
  const control = await probe(undefined, paths)
  for (const attempt of [
    'readsPasswords',
    'readsBeside',
    'writesBeside',
    'writesItsCode',
    'runsCommands',
    'startsWorkers',
  ])
    t.true(control[attempt], attempt)
  const refused = {
    readsPasswords: false,
    readsBeside: false,
    writesBeside: false,
    writesItsCode: false,
    runsCommands: false,
    attachesInspector: false,
    inspectsWorkers: false,
    environment: 0,
  }
  t.like(await probe(permissionFlags({ folders: [directory], worker: true }), paths), {
    ...refused,
    writesInside: true,
  })
  t.like(await probe(permissionFlags(), paths), { ...refused, writesInside: false, startsWorkers: false })
})

test('folders that are the same, or one inside the other, are given once: Node 20 aborts otherwise', async (t) => {
  const { root, directory } = await makePlace(t)
  const paths = { beside: join(root, 'beside'), inside: join(directory, 'inside'), code: join(root, 'code') }
  await Promise.all(Object.values(paths).map((path) => writeFile(path, '')))
  const flags = permissionFlags({ folders: [directory, root, directory] })
  t.is(flags.filter((flag) => flag.startsWith('--allow-fs-write')).length, 1)
  t.like(await probe(flags, paths), { writesBeside: true, writesInside: true, readsPasswords: false })
})
