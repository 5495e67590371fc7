/**
 * A part of the page with its heading, and a figure in its two forms with its caption and numbers.
 */
import { type Content, html, type Markup } from './html.js'
import { drawSvg, type Figure } from './svg.js'

export interface Section {
  id: string
  title: string
  body: Content
}

/** A run on the page: its header, its sections, and its figures, which can also be files. */
export interface RunReport {
  title: string
  eyebrow: string
  header: Content
  sections: Section[]
  figures: Figure[]
}

export function heading(level: number, content: Content, id?: string): Markup {
  const name = id === undefined ? false : html` id="${id}"`
  switch (Math.min(level, 6)) {
    case 1:
      return html`<h1${name}>${content}</h1>`
    case 2:
      return html`<h2${name}>${content}</h2>`
    case 3:
      return html`<h3${name}>${content}</h3>`
    case 4:
      return html`<h4${name}>${content}</h4>`
    case 5:
      return html`<h5${name}>${content}</h5>`
    default:
      return html`<h6${name}>${content}</h6>`
  }
}

export function figureBlock(figure: Figure, caption: Content, numbers: Content): Markup {
  return html`<figure id="${figure.id}">${drawSvg(figure, 'wide')}${drawSvg(figure, 'narrow')}<figcaption>${caption}</figcaption></figure>${numbers}`
}

/** A list of terms with their values. */
export function facts(entries: readonly (readonly [string, Content])[]): Markup {
  return html`<dl class="facts">${entries.map(([term, what]) => html`<div><dt>${term}</dt><dd>${what}</dd></div>`)}</dl>`
}
