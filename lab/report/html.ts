/**
 * HTML and SVG from templates: what is put into html`…` is text unless it is Markup already, so nothing from a file becomes a tag.
 */
export class Markup {
  constructor(readonly text: string) {}

  toString(): string {
    return this.text
  }
}

export type Content = Markup | string | number | null | undefined | false | readonly Content[]

export function html(strings: TemplateStringsArray, ...values: Content[]): Markup {
  let text = strings[0]!
  for (const [i, value] of values.entries()) text += markup(value) + strings[i + 1]!
  return new Markup(text)
}

function markup(value: Content): string {
  if (value === null || value === undefined || value === false) return ''
  if (value instanceof Markup) return value.text
  if (Array.isArray(value)) return value.map(markup).join('')
  return escapeText(String(value))
}

const ENTITIES: Record<string, string> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' }

/** For text and for quoted attributes. */
export function escapeText(text: string): string {
  return visible(text).replace(/[&<>"']/g, (character) => ENTITIES[character]!)
}

/**
 * Characters that act instead of showing, shown: controls as their pictures (␀), those that turn the direction of writing as [U+202E].
 * Line feed and tab stay. What XML does not allow becomes U+FFFD.
 */
export function visible(text: string): string {
  return text
    .toWellFormed()
    .replace(/[\uFFFE\uFFFF]/g, '\uFFFD')
    .replace(/\r\n/g, '\n')
    .replace(/[^\P{Cc}\n\t]/gu, (control) => {
      const code = control.codePointAt(0)!
      return code < 0x20 ? String.fromCodePoint(0x2400 + code) : code === 0x7f ? '\u2421' : codePoint(code)
    })
    .replace(/[\u061C\u200E\u200F\u2028-\u202E\u2066-\u2069\uFEFF\u{E0000}-\u{E007F}]/gu, (mark) =>
      codePoint(mark.codePointAt(0)!),
    )
}

function codePoint(code: number): string {
  return `[U+${code.toString(16).toUpperCase().padStart(4, '0')}]`
}

/** The writing direction of the first letter that has one. */
export function directionOf(text: string): 'rtl' | 'ltr' {
  const letter = /\p{L}/u.exec(text)?.[0] ?? ''
  return /[\p{Script=Hebrew}\p{Script=Arabic}\p{Script=Syriac}\p{Script=Thaana}\p{Script=Nko}]/u.test(letter)
    ? 'rtl'
    : 'ltr'
}
