/**
 * Tables with a caption. A table wider than the screen scrolls in its own box.
 */
import { type Content, html, type Markup } from './html.js'
import { data } from './numbers.js'

export interface Column {
  name: string
  /** Right-aligned. */
  numeric?: boolean
}

export type Cell = Content | boolean

/** The first cell of a row is its heading. */
export function table(caption: Content, columns: readonly Column[], rows: readonly (readonly Cell[])[]): Markup {
  return html`<div class="scroll" tabindex="0" role="group" aria-label="${plain(caption)}"><table><caption>${caption}</caption><thead><tr>${columns.map(
    ({ name, numeric }) => html`<th scope="col"${numeric === true && html` class="n"`}>${name}</th>`,
  )}</tr></thead><tbody>${rows.map(
    (row) =>
      html`<tr>${columns.map(({ numeric }, i) => {
        const look = numeric === true && html` class="n"`
        return i === 0 ? html`<th scope="row"${look}>${cell(row[i])}</th>` : html`<td${look}>${cell(row[i])}</td>`
      })}</tr>`,
  )}</tbody></table></div>`
}

/** Formats a cell: numbers as data, true and false as words. */
function cell(value: Cell | undefined): Content {
  if (typeof value === 'number') return data(value)
  return typeof value === 'boolean' ? (value ? 'yes' : 'no') : value
}

function plain(content: Content): string {
  return typeof content === 'string' ? content : 'Table'
}

/** The numbers of a figure, folded away below it. */
export function figureTable(summary: string, content: Content): Markup {
  return html`<details class="numbers"><summary>${summary}</summary>${content}</details>`
}
