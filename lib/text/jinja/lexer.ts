/**
 * A template's text as tokens, white space control applied: trim_blocks and lstrip_blocks are on, as transformers sets them.
 */
import { SyntaxFault, UnsupportedError } from './errors.js'
import { integer, float, type Value } from './values.js'
import { SPACE, stripEnd } from './text.js'

export type TokenKind =
  | 'data'
  | 'variable_begin'
  | 'variable_end'
  | 'block_begin'
  | 'block_end'
  | 'name'
  | 'literal'
  | 'operator'
  | 'eof'

export interface Token {
  readonly kind: TokenKind
  /** The name, the operator, or the text of data. */
  readonly text: string
  /** The value of a literal. */
  readonly value: Value
  readonly line: number
}

const S = `[${SPACE}]`
const BEGIN = new RegExp(`\\{%([-+]?)${S}*raw${S}*(?:-%\\}${S}*|%\\})|\\{([%{#])([-+]?)`, 'g')
const COMMENT_END = new RegExp(`\\+#\\}|-#\\}${S}*|#\\}\\n?`, 'g')
const RAW_END = new RegExp(`\\{%([-+]?)${S}*endraw${S}*(?:\\+%\\}|-%\\}${S}*|%\\}\\n?)`, 'g')
const BLOCK_END = new RegExp(`\\+%\\}|-%\\}${S}*|%\\}\\n?`, 'y')
const VARIABLE_END = new RegExp(`-\\}\\}${S}*|\\}\\}`, 'y')
const ONLY_SPACE = new RegExp(`^${S}+$`)

const WHITE = new RegExp(`${S}+`, 'y')
const FLOAT = /(?<!\.)(?:\d+_)*\d+(?:(?:\.(?:\d+_)*\d+)?e[-+]?(?:\d+_)*\d+|\.(?:\d+_)*\d+)/iy
const INTEGER = /0b(?:_?[01])+|0o(?:_?[0-7])+|0x(?:_?[\da-f])+|[1-9](?:_?\d)*|0(?:_?0)*/iy
const NAME = /[\p{ID_Continue}]+/uy
const IDENTIFIER = /^[\p{ID_Start}_]/u
const STRING = /'[^'\\]*(?:\\.[^'\\]*)*'|"[^"\\]*(?:\\.[^"\\]*)*"/sy
const OPERATOR = /\/\/|\*\*|==|!=|>=|<=|[-+/*%~[\](){}><=.:|,;]/y
const PAIRS: Readonly<Record<string, string>> = { '(': ')', '[': ']', '{': '}' }

export function tokenize(source: string): Token[] {
  return new Lexer(source).tokens()
}

class Lexer {
  private readonly source: string
  private readonly result: Token[] = []
  private position = 0
  private counted = 0
  private line = 1
  /** Whether what was read last ends a line. */
  private atLineStart = true

  constructor(source: string) {
    const lines = source.replace(/\r\n?/g, '\n')
    this.source = lines.endsWith('\n') ? lines.slice(0, -1) : lines
  }

  tokens(): Token[] {
    while (this.position < this.source.length) {
      BEGIN.lastIndex = this.position
      const begin = BEGIN.exec(this.source)
      if (begin === null) {
        this.add('data', this.source.slice(this.position))
        this.position = this.source.length
        break
      }
      this.tag(begin)
    }
    this.add('eof', '')
    return this.result
  }

  private tag(begin: RegExpExecArray): void {
    const [whole, rawSign, kind, sign] = begin as unknown as [
      string,
      string | undefined,
      string | undefined,
      string | undefined,
    ]
    this.data(begin.index, rawSign ?? sign ?? '', kind === '{')
    this.moveTo(begin.index + whole.length)
    if (kind === undefined) this.raw()
    else if (kind === '#') this.moveTo(this.find(COMMENT_END, 'a comment').end)
    else if (kind === '{') this.inside('variable_begin', 'variable_end', VARIABLE_END)
    else this.inside('block_begin', 'block_end', BLOCK_END)
  }

  /** The text up to a tag, without the white space that the tag takes away. */
  private data(end: number, sign: string, isVariable: boolean): void {
    const text = this.source.slice(this.position, end)
    const lineStart = text.lastIndexOf('\n') + 1
    const strips = sign !== '+' && !isVariable && (lineStart > 0 || this.atLineStart)
    if (sign === '-') this.add('data', stripEnd(text, null))
    else this.add('data', strips && ONLY_SPACE.test(text.slice(lineStart)) ? text.slice(0, lineStart) : text)
  }

  private raw(): void {
    const { found, end } = this.find(RAW_END, 'a raw block')
    this.data(found.index, found[1] ?? '', false)
    this.moveTo(end)
  }

  private find(pattern: RegExp, what: string): { found: RegExpExecArray; end: number } {
    pattern.lastIndex = this.position
    const found = pattern.exec(this.source)
    if (found === null) throw new SyntaxFault(`line ${this.line}: the end of ${what} is missing`)
    return { found, end: found.index + found[0].length }
  }

  private inside(begin: TokenKind, end: TokenKind, closing: RegExp): void {
    this.add(begin, '')
    const open: string[] = []
    for (;;) {
      if (open.length === 0 && this.match(closing) !== undefined) {
        this.add(end, '')
        return
      }
      this.expression(open)
    }
  }

  /** One token of an expression. `open` holds the brackets to be closed: inside of them, %} and }} are no ends. */
  private expression(open: string[]): void {
    if (this.match(WHITE) !== undefined) return
    const literal = this.literal()
    if (literal !== undefined) {
      this.add('literal', literal.text, literal.value)
      return
    }
    const name = this.match(NAME)
    if (name === undefined) this.operator(open)
    else if (IDENTIFIER.test(name)) this.add('name', name)
    else throw this.fault(`invalid identifier ${name}`)
  }

  private literal(): { text: string; value: Value } | undefined {
    const fraction = this.match(FLOAT)
    if (fraction !== undefined) return { text: fraction, value: float(Number(fraction.replaceAll('_', ''))) }
    const whole = this.match(INTEGER)
    if (whole !== undefined) return { text: whole, value: integer(BigInt(whole.replaceAll('_', ''))) }
    const text = this.match(STRING)
    return text === undefined ? undefined : { text, value: this.unescape(text.slice(1, -1)) }
  }

  private operator(open: string[]): void {
    const operator = this.match(OPERATOR)
    if (operator === undefined) {
      if (this.position >= this.source.length) throw this.fault('unexpected end of the template inside a tag')
      throw this.fault(`unexpected character ${JSON.stringify(this.source.charAt(this.position))}`)
    }
    if (PAIRS[operator] !== undefined) open.push(PAIRS[operator])
    else if (')]}'.includes(operator)) {
      const expected = open.pop()
      const wanted = expected === undefined ? '' : `, expected '${expected}'`
      if (expected !== operator) throw this.fault(`unexpected '${operator}'${wanted}`)
    }
    this.add('operator', operator)
  }

  private match(pattern: RegExp): string | undefined {
    pattern.lastIndex = this.position
    const found = pattern.exec(this.source)?.[0]
    if (found !== undefined) this.moveTo(this.position + found.length)
    return found
  }

  private moveTo(position: number): void {
    this.position = position
    this.atLineStart = this.source.charAt(position - 1) === '\n'
  }

  private add(kind: TokenKind, text: string, value: Value = null): void {
    if (kind === 'data' && text === '') return
    for (; this.counted < this.position; this.counted++) if (this.source.charAt(this.counted) === '\n') this.line++
    this.result.push({ kind, text, value, line: this.line })
  }

  private fault(what: string): SyntaxFault {
    return new SyntaxFault(`line ${this.line}: ${what}`)
  }

  /** Python's escapes in a string. */
  private unescape(text: string): string {
    return text.replace(
      /\\(?:([0-7]{1,3})|x([\da-fA-F]{2})|u([\da-fA-F]{4})|U([\da-fA-F]{8})|(.))/gsu,
      (all: string, octal?: string, ...others: (string | undefined)[]) => {
        if (octal !== undefined) return String.fromCharCode(Number.parseInt(octal, 8))
        const [hex2, hex4, hex8, other] = others
        const hex = hex2 ?? hex4 ?? hex8
        if (hex !== undefined) return this.codePoint(Number.parseInt(hex, 16))
        return this.simpleEscape(all, other as string)
      },
    )
  }

  private codePoint(code: number): string {
    if (code > 0x10ffff) throw this.fault('illegal Unicode character in a string')
    return String.fromCodePoint(code)
  }

  private simpleEscape(all: string, character: string): string {
    const known = SIMPLE[character]
    if (known !== undefined) return known
    if (character === 'N') throw new UnsupportedError('the escape \\N{…}')
    if ('xuU'.includes(character)) throw this.fault(`truncated escape \\${character} in a string`)
    const code = character.codePointAt(0) as number
    if (code < 0x80) return all
    // Jinja writes what is not ASCII as an escape of its own first; the backslash before it makes that plain text.
    const hex = code.toString(16)
    return `\\${code < 0x100 ? `x${hex.padStart(2, '0')}` : code < 0x10000 ? `u${hex.padStart(4, '0')}` : `U${hex.padStart(8, '0')}`}`
  }
}

const SIMPLE: Readonly<Record<string, string>> = {
  '\n': '',
  '\\': '\\',
  "'": "'",
  '"': '"',
  a: '\x07',
  b: '\b',
  f: '\f',
  n: '\n',
  r: '\r',
  t: '\t',
  v: '\v',
}
