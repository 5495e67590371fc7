/**
 * The tokens of a template with a place in them.
 */
import { SyntaxFault } from './errors.js'
import { type Token, type TokenKind, tokenize } from './lexer.js'

export class TokenStream {
  private readonly tokens: Token[]
  private place = 0

  constructor(source: string) {
    this.tokens = tokenize(source)
  }

  get current(): Token {
    return this.tokens[this.place] as Token
  }

  /** The token behind the current one. */
  get following(): Token {
    return this.tokens[Math.min(this.place + 1, this.tokens.length - 1)] as Token
  }

  next(): Token {
    const token = this.current
    if (token.kind !== 'eof') this.place++
    return token
  }

  is(kind: TokenKind, text?: string): boolean {
    const token = this.current
    return token.kind === kind && (text === undefined || token.text === text)
  }

  isName(...names: string[]): boolean {
    return this.current.kind === 'name' && names.includes(this.current.text)
  }

  isOperator(...operators: string[]): boolean {
    return this.current.kind === 'operator' && operators.includes(this.current.text)
  }

  /** Whether the token was there; then it is behind us. */
  skip(kind: TokenKind, text?: string): boolean {
    const found = this.is(kind, text)
    if (found) this.place++
    return found
  }

  expect(kind: TokenKind, text?: string): Token {
    if (this.is(kind, text)) return this.next()
    return this.fail(`expected ${text ?? NAMES[kind]}, got ${describe(this.current)}`)
  }

  fail(what: string): never {
    throw new SyntaxFault(`line ${this.current.line}: ${what}`)
  }
}

const NAMES: Readonly<Record<TokenKind, string>> = {
  data: 'text',
  variable_begin: '{{',
  variable_end: '}}',
  block_begin: '{%',
  block_end: '%}',
  name: 'a name',
  literal: 'a literal',
  operator: 'an operator',
  eof: 'the end of the template',
}

export function describe(token: Token): string {
  return token.text === '' || token.kind === 'data' ? NAMES[token.kind] : `"${token.text}"`
}
