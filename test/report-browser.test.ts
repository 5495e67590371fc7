/**
 * The report in a real browser: it asks for nothing, fits every screen, works by keyboard and in both schemes, and axe-core finds no barrier.
 */
import { createRequire } from 'node:module'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import type { AxeResults } from 'axe-core'
import type { Browser, Page } from 'playwright-core'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { writeReport } from '../lab/index.js'
import { writePersonaRun, writeTheoryRun, writeTrainingRun } from './fixtures/report-runs.js'
import { chromiumPath, startChromium } from './support/browser.js'
import { skip } from './support/skip.js'
import { temporaryFolder } from './support/tmp.js'

const OPEN_DETAILS = "document.querySelectorAll('details').forEach((one) => { one.open = true })"

interface Layout {
  scrollWidth: number
  /** The forms that show, and how large their smallest letters are. */
  figures: { forms: string[]; letters: number }[]
}

const LAYOUT = `({
  scrollWidth: document.documentElement.scrollWidth,
  figures: [...document.querySelectorAll('figure')].map((figure) => {
    const shown = [...figure.querySelectorAll('svg')].filter((svg) => svg.getBoundingClientRect().width > 0)
    const scale = shown[0].getBoundingClientRect().width / shown[0].viewBox.baseVal.width
    return { forms: shown.map((svg) => svg.getAttribute('class')), letters: 11 * scale }
  }),
})`

const report = suite('report in a browser')
const root = temporaryFolder()
const executable = chromiumPath()

async function pageFile(name: string, ...runs: string[]): Promise<string> {
  const { page } = await writeReport(runs, { out: join(root, `${name}.html`) })
  return pathToFileURL(page).href
}

async function pages(): Promise<Record<'persona' | 'all' | 'hostile', string>> {
  const [persona, theory, training, hostile] = ['persona', 'theory', 'training', 'hostile'].map((name) =>
    join(root, name),
  ) as [string, string, string, string]
  writePersonaRun(persona, { explained: 3 })
  writeTheoryRun(theory)
  writeTrainingRun(training)
  const text = `<script>document.title = 'injected'</script><img src="https://example.com/x.png" onerror="alert(1)">"'\u202E\u0000 שלום مرحبا 👩‍👩‍👧 ${'long'.repeat(100)}`
  writePersonaRun(hostile, { text, explained: 3 })
  return {
    persona: await pageFile('persona', persona),
    all: await pageFile('all', persona, theory, training),
    hostile: await pageFile('hostile', hostile),
  }
}

/** Opens a page; what it asks for and complains of is gathered. */
async function open(
  browser: Browser,
  url: string,
  width: number,
  scheme: 'light' | 'dark',
): Promise<{ page: Page; requests: string[]; complaints: string[] }> {
  const page = await browser.newPage({ viewport: { width, height: 900 }, colorScheme: scheme })
  const requests: string[] = []
  const complaints: string[] = []
  page.on('request', (request) => {
    if (request.url() !== url && !request.url().startsWith('data:')) requests.push(request.url())
  })
  page.on('console', (message) => complaints.push(message.text()))
  page.on('pageerror', (error) => complaints.push(error.message))
  page.on('dialog', (dialog) => {
    complaints.push(dialog.message())
    void dialog.dismiss()
  })
  await page.goto(url)
  return { page, requests, complaints }
}

/** In the page: code as text, since these files are compiled without the browser's types. */
const inPage = <T>(page: Page, code: string): Promise<T> => page.evaluate(code) as Promise<T>

if (executable === undefined) {
  skip('there is no Chromium: install it (Debian: apt-get install chromium), or say where it is in IMPLEX_CHROMIUM')
} else {
  const urls = await pages()
  const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8')
  let browser: Browser
  report.before(async () => {
    browser = await startChromium(executable)
  })
  report.after(async () => {
    await browser?.close()
  })

  for (const [name, url] of Object.entries(urls)) {
    report(`${name}: quiet, alone, and no wider than any screen`, async () => {
      const { page, requests, complaints } = await open(browser, url, 1600, 'light')
      assert.is.not(await page.title(), 'injected')
      await inPage(page, OPEN_DETAILS)
      for (const width of [1600, 1000, 400]) {
        await page.setViewportSize({ width, height: 900 })
        const { scrollWidth, figures } = await inPage<Layout>(page, LAYOUT)
        assert.is(scrollWidth, width)
        assert.ok(figures.length > 3)
        for (const { forms, letters } of figures) {
          assert.equal(forms, [width === 400 ? 'narrow' : 'wide'])
          assert.ok(letters > 9, `${letters} px`)
        }
      }
      await page.emulateMedia({ colorScheme: 'dark' })
      assert.equal(requests, [])
      assert.equal(complaints, [])
      await page.close()
    })
  }

  for (const [name, width, scheme, other] of [
    ['persona', 1600, 'light', 'dark'],
    ['all', 400, 'dark', 'light'],
  ] as const) {
    report(`axe-core finds nothing: ${name}, ${width} px`, async () => {
      const { page, complaints } = await open(browser, urls[name], width, scheme)
      await inPage(page, OPEN_DETAILS)
      await page.evaluate(axe)
      const everything = await inPage<AxeResults>(page, "axe.run(document, { resultTypes: ['violations'] })")
      await page.emulateMedia({ colorScheme: other })
      const contrast = await inPage<AxeResults>(page, "axe.run(document, { runOnly: ['color-contrast'] })")
      const found = [...everything.violations, ...contrast.violations].map(({ id, help, nodes }) => {
        const shown = nodes.slice(0, 3).map(({ html }) => html.slice(0, 200))
        return `${id}: ${help}: ${shown.join(' | ')}`
      })
      assert.equal(found, [])
      for (const { passes } of [everything, contrast]) assert.ok(passes.some(({ id }) => id === 'color-contrast'))
      assert.equal(complaints, [])
      await page.close()
    })
  }

  report('the button switches the scheme, says what it will do, and is remembered', async () => {
    const { page } = await open(browser, urls.persona, 1600, 'light')
    const paper = () => inPage<string>(page, 'getComputedStyle(document.body).backgroundColor')
    const button = page.locator('#scheme')
    const light = await paper()
    assert.is(await button.textContent(), 'Dark colors')
    await button.focus()
    await page.keyboard.press('Enter')
    const dark = await paper()
    assert.is.not(dark, light)
    assert.is(await button.textContent(), 'Light colors')
    await page.reload()
    assert.is(await paper(), dark)
    await button.click()
    assert.is(await paper(), light)
    await page.emulateMedia({ colorScheme: 'dark' })
    assert.is(await paper(), light, 'the choice outweighs the system')
    await page.close()
  })

  report(
    'by keyboard: the skip link, a response as one stop, arrows between its tokens, each with its value',
    async () => {
      const { page } = await open(browser, urls.persona, 1600, 'light')
      await page.keyboard.press('Tab')
      assert.is(await inPage(page, 'document.activeElement.className'), 'skip')
      await page.keyboard.press('Enter')
      assert.is(await inPage(page, 'location.hash'), '#content')
      const tip = (n: number) => `document.querySelector('.tokens').children[${n}].querySelector('.tip')`
      const opacity = (n: number) => inPage<string>(page, `getComputedStyle(${tip(n)}).opacity`)
      await page.locator('.tokens >> nth=0 >> li >> nth=0').focus()
      assert.is(await opacity(0), '1')
      assert.match(await inPage<string>(page, `${tip(0)}.textContent`), /^share [+−]?[\d.e−]+, head [+−]?[\d.e−]+$/)
      const cut = await inPage<boolean>(page, `${tip(0)}.scrollWidth > ${tip(0)}.clientWidth`)
      assert.not.ok(cut, 'the whole value can be read')
      await page.keyboard.press('ArrowRight')
      assert.is(await opacity(0), '0')
      assert.is(await opacity(1), '1')
      await page.keyboard.press('End')
      const last = await inPage<string>(page, 'document.activeElement.textContent')
      assert.match(last, /^<\|end\|>share /)
      await page.keyboard.press('Home')
      assert.is(await opacity(0), '1')
      await page.keyboard.press('Shift+Tab')
      await page.keyboard.press('Tab')
      assert.is(await opacity(0), '1', 'the tab key comes back to where it was')
      await page.keyboard.press('Tab')
      const list = await inPage<string>(page, "document.activeElement.parentElement.getAttribute('aria-label')")
      assert.is(list, 'Tokens of the rejected response')
      await page.locator('.tokens >> nth=0 >> li >> nth=3').hover()
      assert.is(await opacity(3), '1')
      await page.close()
    },
  )

  report('pairs stand side by side where there is room, else below each other', async () => {
    for (const [width, same] of [
      [1600, true],
      [400, false],
    ] as const) {
      const { page } = await open(browser, urls.persona, width, 'light')
      const [chosen, rejected] = await inPage<number[]>(
        page,
        "[...document.querySelector('.pair .sides').children].map((one) => one.getBoundingClientRect().top)",
      )
      assert.is(chosen === rejected, same)
      await page.close()
    }
  })

  report('without scripts everything is there but the button', async () => {
    const context = await browser.newContext({ javaScriptEnabled: false, viewport: { width: 1600, height: 900 } })
    const page = await context.newPage()
    await page.goto(urls.persona)
    assert.not.ok(await page.locator('#scheme').isVisible())
    assert.ok(await page.locator('figure >> nth=0').isVisible())
    await context.close()
  })

  report('on paper: light, without what only works on a screen', async () => {
    const { page } = await open(browser, urls.persona, 1600, 'dark')
    await page.emulateMedia({ media: 'print', colorScheme: 'dark' })
    assert.is(await inPage(page, 'getComputedStyle(document.body).backgroundColor'), 'rgb(255, 255, 255)')
    assert.not.ok(await page.locator('#scheme').isVisible())
    assert.not.ok(await page.locator('nav').isVisible())
    await page.close()
  })

  report.run()
}
