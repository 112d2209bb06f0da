import { buildTarget, Host, launchTarget, withPlatform } from './target.js'

/** A host of its own, whose output a test reads: what the enclave prints must not be in it. */
await withPlatform(async (platform) => {
  const image = await buildTarget()
  for (const name of ['print', 'throwLater', 'rejectLater']) {
    const host = new Host(launchTarget(platform, image))
    await host.ready()
    await host.call(name).catch(() => {})
    if (name === 'print') await host.instance.terminate()
    await host.instance.exited
  }
})
