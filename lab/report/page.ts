/**
 * The HTML page around its runs: one file that requests nothing from the network. Its security policy forbids requests.
 */
import { createHash } from 'node:crypto'
import { type Content, html, Markup } from './html.js'
import { heading, type RunReport, type Section } from './section.js'
import { SCRIPT } from './script.js'
import { STYLE } from './style.js'

export function page(reports: readonly RunReport[]): string {
  const [only] = reports
  const single = reports.length === 1 && only !== undefined
  const title = single ? only.title : `${reports.length} runs`
  const hash = createHash('sha256').update(SCRIPT).digest('base64')
  const policy = `default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-${hash}'; img-src data:; base-uri 'none'; form-action 'none'`
  return html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${new Markup(policy.replaceAll('"', '&quot;'))}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="implex">
<meta name="color-scheme" content="light dark">
<title>${title} · implex</title>
<link rel="icon" href="data:,">
<style>${new Markup(STYLE)}</style>
</head>
<body>
<a class="skip" href="#content">Skip to content</a>
<div class="page">
<header class="bar"><span class="brand">implex report</span><button type="button" id="scheme" hidden>Dark colors</button></header>
<nav aria-labelledby="contents"><h2 id="contents">Contents</h2>${single ? links(only.sections) : contents(reports)}</nav>
<main id="content" tabindex="-1">
${single ? html`${intro(only, 1)}${parts(only.sections, 2)}` : html`<h1>${title}</h1>${reports.map(runPart)}`}
</main>
<footer>Made by implex from the files of the run. This page loads nothing from elsewhere.</footer>
</div>
<script>${new Markup(SCRIPT)}</script>
</body>
</html>
`.text
}

function intro({ title, eyebrow, header }: RunReport, level: number, id?: string): Content {
  return html`<p class="eyebrow">${eyebrow}</p>${heading(level, title, id)}${header}`
}

function runPart(report: RunReport, i: number): Content {
  const id = `run-${i + 1}`
  return html`<section class="run" aria-labelledby="${id}">${intro(report, 2, id)}${parts(report.sections, 3)}</section>`
}

function parts(sections: readonly Section[], level: number): Content {
  return sections.map(
    ({ id, title, body }) => html`<section class="part">${heading(level, title, id)}${body}</section>\n`,
  )
}

function links(sections: readonly Section[]): Content {
  return html`<ul>${sections.map(({ id, title }) => html`<li><a href="#${id}">${title}</a></li>`)}</ul>`
}

function contents(reports: readonly RunReport[]): Content {
  return html`<ul>${reports.map(({ title, sections }, i) => html`<li class="whole"><a href="#run-${i + 1}">${title}</a>${links(sections)}</li>`)}</ul>`
}
