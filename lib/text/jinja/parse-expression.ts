/**
 * Expressions, with Jinja2's precedence: or, and, not, comparison, + and -, ~, * / // %, **, sign, filters and tests.
 */
import type { Arguments, Comparison, Expression } from './nodes.js'
import type { Operator } from './numbers.js'
import { describe, type TokenStream } from './token-stream.js'

const CONSTANTS: Readonly<Record<string, null | boolean>> = {
  true: true,
  True: true,
  false: false,
  False: false,
  none: null,
  None: null,
}

export interface TupleOptions {
  /** Whether `a if b else c` is read; not after `in` and `if`, where `if` means something else. */
  choices?: boolean
  /** A name that ends the tuple. */
  end?: string
  /** In parentheses: then an empty tuple is one. */
  parentheses?: boolean
}

/** One expression, or several apart by commas as a tuple. */
export function parseTuple(tokens: TokenStream, options: TupleOptions = {}): Expression {
  const { choices = true, end, parentheses = false } = options
  const items: Expression[] = []
  let isTuple = false
  for (;;) {
    if (items.length > 0) tokens.expect('operator', ',')
    if (isTupleEnd(tokens, end)) break
    items.push(choices ? parseExpression(tokens) : parseOr(tokens))
    if (!tokens.is('operator', ',')) break
    isTuple = true
  }
  if (isTuple) return { kind: 'tuple', items }
  const [only] = items
  if (only !== undefined) return only
  if (!parentheses) tokens.fail(`expected an expression, got ${describe(tokens.current)}`)
  return { kind: 'tuple', items }
}

export function isTupleEnd(tokens: TokenStream, end: string | undefined): boolean {
  if (tokens.is('variable_end') || tokens.is('block_end') || tokens.is('operator', ')')) return true
  return end !== undefined && tokens.isName(end)
}

export function parseExpression(tokens: TokenStream): Expression {
  let then = parseOr(tokens)
  while (tokens.skip('name', 'if')) {
    const test = parseOr(tokens)
    const otherwise = tokens.skip('name', 'else') ? parseExpression(tokens) : undefined
    then = { kind: 'choice', test, then, otherwise }
  }
  return then
}

function parseOr(tokens: TokenStream): Expression {
  let left = parseAnd(tokens)
  while (tokens.skip('name', 'or')) left = { kind: 'logic', or: true, left, right: parseAnd(tokens) }
  return left
}

function parseAnd(tokens: TokenStream): Expression {
  let left = parseNot(tokens)
  while (tokens.skip('name', 'and')) left = { kind: 'logic', or: false, left, right: parseNot(tokens) }
  return left
}

function parseNot(tokens: TokenStream): Expression {
  if (tokens.skip('name', 'not')) return { kind: 'not', operand: parseNot(tokens) }
  return parseComparison(tokens)
}

function parseComparison(tokens: TokenStream): Expression {
  const first = parseSum(tokens)
  const others: [Comparison, Expression][] = []
  for (;;) {
    const comparison = takeComparison(tokens)
    if (comparison === undefined) break
    others.push([comparison, parseSum(tokens)])
  }
  return others.length === 0 ? first : { kind: 'compare', first, others }
}

function takeComparison(tokens: TokenStream): Comparison | undefined {
  if (tokens.isOperator('==', '!=', '<', '<=', '>', '>=')) return tokens.next().text as Comparison
  if (tokens.skip('name', 'in')) return 'in'
  const isNotIn = tokens.isName('not') && tokens.following.kind === 'name' && tokens.following.text === 'in'
  if (!isNotIn) return undefined
  tokens.next()
  tokens.next()
  return 'not in'
}

function parseSum(tokens: TokenStream): Expression {
  return leftToRight(tokens, ['+', '-'], parseConcat)
}

function parseConcat(tokens: TokenStream): Expression {
  const first = parseProduct(tokens)
  const parts = [first]
  while (tokens.skip('operator', '~')) parts.push(parseProduct(tokens))
  return parts.length === 1 ? first : { kind: 'concat', parts }
}

function parseProduct(tokens: TokenStream): Expression {
  return leftToRight(tokens, ['*', '/', '//', '%'], parsePower)
}

function parsePower(tokens: TokenStream): Expression {
  return leftToRight(tokens, ['**'], (each) => parseUnary(each, true))
}

function leftToRight(
  tokens: TokenStream,
  operators: Operator[],
  operand: (tokens: TokenStream) => Expression,
): Expression {
  let left = operand(tokens)
  while (tokens.isOperator(...operators)) {
    const operator = tokens.next().text as Operator
    left = { kind: 'binary', operator, left, right: operand(tokens) }
  }
  return left
}

function parseUnary(tokens: TokenStream, withFilter: boolean): Expression {
  const signed = tokens.isOperator('-', '+')
  const node = signed
    ? ({ kind: 'sign', negative: tokens.next().text === '-', operand: parseUnary(tokens, false) } as const)
    : parsePrimary(tokens)
  const whole = parsePostfix(tokens, node)
  return withFilter ? parseFilters(tokens, whole) : whole
}

function parsePrimary(tokens: TokenStream): Expression {
  const token = tokens.current
  if (token.kind === 'name') {
    tokens.next()
    const constant = Object.hasOwn(CONSTANTS, token.text) ? CONSTANTS[token.text] : undefined
    return constant === undefined ? { kind: 'name', name: token.text } : { kind: 'constant', value: constant }
  }
  if (token.kind === 'literal') return parseLiteral(tokens)
  if (tokens.skip('operator', '(')) {
    const inner = parseTuple(tokens, { parentheses: true })
    tokens.expect('operator', ')')
    return inner
  }
  if (tokens.skip('operator', '[')) return { kind: 'list', items: listed(tokens, ']', parseExpression) }
  if (tokens.skip('operator', '{')) return { kind: 'dict', entries: listed(tokens, '}', parseEntry) }
  return tokens.fail(`unexpected ${describe(token)}`)
}

/** A number, or strings in a row, which are one string. */
function parseLiteral(tokens: TokenStream): Expression {
  let { value } = tokens.next()
  while (typeof value === 'string' && tokens.is('literal') && typeof tokens.current.value === 'string') {
    value += tokens.next().value as string
  }
  return { kind: 'constant', value }
}

function parseEntry(tokens: TokenStream): [Expression, Expression] {
  const key = parseExpression(tokens)
  tokens.expect('operator', ':')
  return [key, parseExpression(tokens)]
}

/** Items apart by commas, up to the closing bracket, with a comma behind the last if wanted. */
function listed<Item>(tokens: TokenStream, close: string, parse: (tokens: TokenStream) => Item): Item[] {
  const items: Item[] = []
  while (!tokens.is('operator', close)) {
    if (items.length > 0) tokens.expect('operator', ',')
    if (tokens.is('operator', close)) break
    items.push(parse(tokens))
  }
  tokens.next()
  return items
}

function parsePostfix(tokens: TokenStream, node: Expression): Expression {
  let result = node
  for (;;) {
    if (tokens.skip('operator', '.')) result = parseDot(tokens, result)
    else if (tokens.skip('operator', '[')) result = parseBrackets(tokens, result)
    else if (tokens.is('operator', '(')) result = { kind: 'call', callee: result, arguments: parseArguments(tokens) }
    else return result
  }
}

function parseDot(tokens: TokenStream, object: Expression): Expression {
  const token = tokens.next()
  if (token.kind === 'name') return { kind: 'attribute', object, name: token.text }
  const isWhole = token.kind === 'literal' && /^\d/.test(token.text) && !/[.e]/i.test(token.text)
  if (!isWhole) tokens.fail('expected a name or a number behind the dot')
  return { kind: 'item', object, key: { kind: 'constant', value: token.value } }
}

function parseBrackets(tokens: TokenStream, object: Expression): Expression {
  const bounds = parseSubscript(tokens)
  if (tokens.is('operator', ',')) return parseTupleKey(tokens, object, bounds)
  tokens.expect('operator', ']')
  const [key] = bounds
  if (bounds.length > 1) return { kind: 'slice', object, bounds }
  return { kind: 'item', object, key: key as Expression }
}

function parseTupleKey(tokens: TokenStream, object: Expression, first: (Expression | undefined)[]): Expression {
  const items = [first]
  while (tokens.skip('operator', ',')) items.push(parseSubscript(tokens))
  tokens.expect('operator', ']')
  if (items.some((bounds) => bounds.length > 1)) tokens.fail('slices in a tuple are not possible')
  return { kind: 'item', object, key: { kind: 'tuple', items: items.map(([key]) => key as Expression) } }
}

/** One expression for a key, three for a slice, absent ones undefined. */
function parseSubscript(tokens: TokenStream): (Expression | undefined)[] {
  const bound = (): Expression | undefined => (tokens.isOperator(':', ']', ',') ? undefined : parseExpression(tokens))
  const first = tokens.is('operator', ':') ? undefined : parseExpression(tokens)
  if (!tokens.skip('operator', ':')) return [first]
  const second = bound()
  return [first, second, tokens.skip('operator', ':') ? bound() : undefined]
}

export function parseArguments(tokens: TokenStream): Arguments {
  tokens.expect('operator', '(')
  const args: Expression[] = []
  const keywords: [string, Expression][] = []
  let moreArgs: Expression | undefined
  let moreKeywords: Expression | undefined
  const ensure = (valid: boolean): void => {
    if (!valid) tokens.fail('invalid order of arguments')
  }
  for (let first = true; !tokens.is('operator', ')'); first = false) {
    if (!first) tokens.expect('operator', ',')
    if (tokens.is('operator', ')')) break
    if (tokens.skip('operator', '*')) {
      ensure(moreArgs === undefined && moreKeywords === undefined)
      moreArgs = parseExpression(tokens)
    } else if (tokens.skip('operator', '**')) {
      ensure(moreKeywords === undefined)
      moreKeywords = parseExpression(tokens)
    } else if (tokens.is('name') && tokens.following.kind === 'operator' && tokens.following.text === '=') {
      ensure(moreKeywords === undefined)
      const name = tokens.next().text
      tokens.next()
      if (keywords.some(([other]) => other === name)) tokens.fail(`keyword argument repeated: ${name}`)
      keywords.push([name, parseExpression(tokens)])
    } else {
      ensure(moreArgs === undefined && moreKeywords === undefined && keywords.length === 0)
      args.push(parseExpression(tokens))
    }
  }
  tokens.expect('operator', ')')
  return { args, keywords, moreArgs, moreKeywords }
}

const NO_ARGUMENTS: Arguments = { args: [], keywords: [], moreArgs: undefined, moreKeywords: undefined }

function parseFilters(tokens: TokenStream, node: Expression): Expression {
  let result = node
  for (;;) {
    if (tokens.skip('operator', '|')) result = parseFilter(tokens, result)
    else if (tokens.skip('name', 'is')) result = parseTest(tokens, result)
    else if (tokens.is('operator', '(')) result = { kind: 'call', callee: result, arguments: parseArguments(tokens) }
    else return result
  }
}

/** A filter behind its bar. */
export function parseFilter(tokens: TokenStream, operand: Expression): Expression {
  const name = dottedName(tokens)
  return {
    kind: 'filter',
    operand,
    name,
    arguments: tokens.is('operator', '(') ? parseArguments(tokens) : NO_ARGUMENTS,
  }
}

function parseTest(tokens: TokenStream, operand: Expression): Expression {
  const negated = tokens.skip('name', 'not')
  const name = dottedName(tokens)
  const test: Expression = { kind: 'test', operand, name, arguments: testArguments(tokens) }
  return negated ? { kind: 'not', operand: test } : test
}

/** In parentheses, or one value without them. */
function testArguments(tokens: TokenStream): Arguments {
  if (tokens.is('operator', '(')) return parseArguments(tokens)
  const starts = tokens.is('name') || tokens.is('literal') || tokens.isOperator('[', '{')
  if (!starts || tokens.isName('else', 'or', 'and')) return NO_ARGUMENTS
  if (tokens.isName('is')) tokens.fail('tests cannot be chained with is')
  return { ...NO_ARGUMENTS, args: [parsePostfix(tokens, parsePrimary(tokens))] }
}

function dottedName(tokens: TokenStream): string {
  let name = tokens.expect('name').text
  while (tokens.skip('operator', '.')) name += `.${tokens.expect('name').text}`
  return name
}
