import test, { type ExecutionContext } from 'ava'
import { chromium, type Browser, type Page } from 'playwright-core'
import { askSocket } from '../kms/admin.js'
import { PASSPHRASE } from '../kms/served.js'
import { chromiumPath, consoleWorld } from './world.js'

const executablePath = chromiumPath()
const title = 'the console in Chromium'

let started: Promise<Browser> | undefined
const browser = (): Promise<Browser> =>
  (started ??= chromium.launch({ ...(executablePath === undefined ? {} : { executablePath }), args: ['--no-sandbox'] }))
test.after.always(async () => (await started)?.close())

/** A page, and what it complained of or asked for elsewhere. */
const open = async (t: ExecutionContext, url: string) => {
  const context = await (await browser()).newContext()
  t.teardown(() => context.close())
  const page = await context.newPage()
  const complaints: string[] = []
  page.on('pageerror', (error) => complaints.push(error.message))
  page.on('console', (message) => {
    // A refusal that the page itself reports to the operator is logged by the browser too.
    if (message.type() === 'error' && !message.text().includes('status of')) complaints.push(message.text())
  })
  page.on('request', (request) => {
    if (new URL(request.url()).origin !== new URL(url).origin && !request.url().startsWith('data:'))
      complaints.push(`asked for ${request.url()}`)
  })
  await page.goto(url)
  return { page, complaints }
}

const textOf = (page: Page, id: string): Promise<string> => page.locator(`#${id}`).innerText()
const PATIENCE = { timeout: 60_000 }

if (executablePath === undefined) test.skip(`${title}: no chromium`, () => undefined)
else {
  test(`${title}: shows keys, flows, enclaves, recoveries and receipts, asks nothing of anybody else, and follows`, async (t) => {
    const { url, recover, served } = await consoleWorld(t)
    const { page, complaints } = await open(t, url)
    await page.locator('#flows tbody tr').nth(2).waitFor(PATIENCE)
    t.false(page.url().includes('#'), 'the token has left the address bar')
    t.regex(await textOf(page, 'flows'), /hospital-east\s+credit-2026\s+party\s+3\s+2\s+active/)
    t.regex(await textOf(page, 'enclaves'), /hospital-east.*superseded/)
    t.regex(await textOf(page, 'keys'), /root@1.*enabled/)
    t.is(await page.locator('#recoveries circle').count(), 4)
    t.regex(await textOf(page, 'receipts'), /denial.*ERR_/)
    t.is(await textOf(page, 'custody'), 'unlocked')
    t.true((await textOf(page, 'identity')).startsWith(Buffer.from(served.identity).toString('hex').slice(0, 16)))
    await recover('hospital-west', 1)
    await page.locator('#flows tbody tr').nth(3).waitFor(PATIENCE)
    await page
      .locator('#recoveries circle')
      .nth(4)
      .waitFor({ ...PATIENCE, state: 'attached' })
    t.deepEqual(complaints, [])
  })

  test(`${title}: is used by keyboard, and what was folded stays folded when something changes`, async (t) => {
    const { url, recover } = await consoleWorld(t)
    const { page } = await open(t, url)
    const fold = page.locator('#keys details[data-id="root:flows"]')
    await fold.waitFor(PATIENCE)
    // In the browser: which fold has the focus, or which class what has it is of.
    const FOCUSED =
      "document.activeElement?.tagName === 'SUMMARY' ? document.activeElement.parentElement.dataset.id : document.activeElement?.className"
    const focused = (): Promise<unknown> => page.evaluate(FOCUSED)
    await page.keyboard.press('Tab')
    t.is(await focused(), 'skip')
    for (let count = 0; count < 10 && (await focused()) !== 'root:flows'; count++) await page.keyboard.press('Tab')
    t.is(await focused(), 'root:flows')
    await page.keyboard.press('Enter')
    t.is(await fold.getAttribute('open'), null)
    await recover('hospital-west', 1)
    await page.locator('#flows tbody tr').nth(3).waitFor(PATIENCE)
    t.is(await fold.getAttribute('open'), null)
    t.is(await focused(), 'root:flows')
  })

  test(`${title}: without the link's token it asks for one, and says that a wrong one is wrong`, async (t) => {
    const { url } = await consoleWorld(t)
    const [address = '', token = ''] = url.split('#')
    const { page } = await open(t, address)
    const field = page.locator('#token')
    await field.waitFor(PATIENCE)
    t.false(await page.locator('#content').isVisible())
    await page.keyboard.type('wrong')
    await page.keyboard.press('Enter')
    await page.locator('#wrong').waitFor(PATIENCE)
    await field.fill(token)
    await page.keyboard.press('Enter')
    await page.locator('#flows tbody tr').first().waitFor(PATIENCE)
    t.false(await field.isVisible())
  })

  test(`${title}: says when the KMS is sealed, shows nothing of its flows then, and goes on when it is unlocked`, async (t) => {
    const { url, socketPath } = await consoleWorld(t)
    const { page } = await open(t, url)
    await page.locator('#flows tbody tr').first().waitFor(PATIENCE)
    t.is((await askSocket(socketPath, '/v1/seal', { method: 'POST' })).status, 200)
    await page.getByText('No flow is known yet.').waitFor(PATIENCE)
    t.is(await textOf(page, 'custody'), 'sealed')
    const headers = { 'content-type': 'application/octet-stream' }
    t.is((await askSocket(socketPath, '/v1/unlock', { method: 'POST', body: PASSPHRASE, headers })).status, 200)
    await page.locator('#flows tbody tr').nth(2).waitFor(PATIENCE)
    t.is(await textOf(page, 'custody'), 'unlocked')
  })
}

test('what shows the console passes on nothing but the console, and that to nobody without the token', async (t) => {
  const { url } = await consoleWorld(t)
  const { origin, hash } = new URL(url)
  const authorization = `Bearer ${hash.slice(1)}`
  const ask = async (path: string, init: RequestInit = {}): Promise<number> => (await fetch(origin + path, init)).status
  t.is(await ask('/v1/console?after=0'), 401)
  t.is(await ask('/v1/console?after=0', { headers: { authorization: 'Bearer wrong' } }), 401)
  t.is(await ask('/v1/console?after=0', { headers: { authorization } }), 200)
  t.is(await ask('/v1/console?after=x', { headers: { authorization } }), 400)
  t.is(await ask('/v1/status', { headers: { authorization } }), 404)
  t.is(await ask('/v1/seal', { headers: { authorization }, method: 'POST' }), 405)
  const page = await fetch(`${origin}/console`)
  t.regex(page.headers.get('content-security-policy') ?? '', /default-src 'none'/)
  t.false((await page.text()).includes('hospital'))
})
