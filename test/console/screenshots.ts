import { fileURLToPath } from 'node:url'
import { chromium } from 'playwright-core'
import { chromiumPath, consoleWorld } from './world.js'

/** `npm run docs:screenshots`: the console as docs/console.md shows it. */
const executablePath = chromiumPath()
if (executablePath === undefined) throw new Error('It needs chromium')

const teardowns: (() => Promise<void>)[] = []
const { url, recover } = await consoleWorld({ teardown: (work) => teardowns.unshift(work) })
const browser = await chromium.launch({ executablePath, args: ['--no-sandbox'] })
try {
  for (const colorScheme of ['light', 'dark'] as const) {
    await recover(`hospital-${colorScheme === 'light' ? 'west' : 'coast'}`, 2)
    const page = await browser.newPage({ viewport: { width: 1280, height: 900 }, colorScheme })
    await page.goto(url)
    await page.locator('#receipts tbody tr').first().waitFor()
    await page.screenshot({ path: fileURLToPath(new URL(`../../../docs/console-${colorScheme}.png`, import.meta.url)) })
  }
} finally {
  await browser.close()
  for (const work of teardowns) await work()
}
