/**
 * Statements: the tags of a template and what is between them.
 */
import { UnsupportedError } from './errors.js'
import type { Expression, Parameters, Statement, Target } from './nodes.js'
import { isTupleEnd, parseExpression, parseFilter, parseTuple } from './parse-expression.js'
import { TokenStream } from './token-stream.js'

/** Tags of Jinja2 that need a loader, or change how values are written. */
const REFUSED_TAGS = new Set(['include', 'import', 'from', 'extends', 'block', 'autoescape'])
const CONSTANTS = new Set(['true', 'false', 'none', 'True', 'False', 'None'])

export function parse(source: string): Statement[] {
  const tokens = new TokenStream(source)
  return new Parser(tokens).template()
}

class Parser {
  /** Whether break and continue have a loop to act on: macros and call blocks are functions of their own. */
  private inLoop = false

  constructor(private readonly tokens: TokenStream) {}

  template(): Statement[] {
    return this.statements([])
  }

  /** Up to the tag of one of these names, whose `{%` is read; to the end of the template when there are none. */
  private statements(ends: readonly string[]): Statement[] {
    const { tokens } = this
    const body: Statement[] = []
    for (;;) {
      if (tokens.is('eof')) {
        if (ends.length > 0) tokens.fail(`unexpected end of the template; expected ${ends.join(' or ')}`)
        return body
      }
      if (tokens.is('data')) body.push({ kind: 'text', text: tokens.next().text })
      else if (tokens.skip('variable_begin')) {
        body.push({ kind: 'print', value: parseTuple(tokens) })
        tokens.expect('variable_end')
      } else {
        tokens.expect('block_begin')
        if (tokens.isName(...ends)) return body
        body.push(...this.statement())
        tokens.expect('block_end')
      }
    }
  }

  /** The body behind a tag, up to one of the ends. A colon behind the tag is allowed, as in Python. */
  private body(...ends: string[]): Statement[] {
    this.tokens.skip('operator', ':')
    this.tokens.expect('block_end')
    return this.statements(ends)
  }

  /** A body whose end tag is read too, up to its `%}`. */
  private bodyTo(end: string): Statement[] {
    const body = this.body(end)
    this.tokens.next()
    return body
  }

  private within<T>(inLoop: boolean, work: () => T): T {
    const saved = this.inLoop
    this.inLoop = inLoop
    const result = work()
    this.inLoop = saved
    return result
  }

  private statement(): Statement[] {
    const { tokens } = this
    const name = tokens.expect('name').text
    switch (name) {
      case 'set':
        return [this.set()]
      case 'if':
        return [this.conditional()]
      case 'for':
        return [this.loop()]
      case 'with':
        return [this.with()]
      case 'macro':
        return [this.macro()]
      case 'call':
        return [this.call()]
      case 'filter':
        return [
          {
            kind: 'filter-block',
            filter: this.filters(parseFilter(tokens, { kind: 'collected' })),
            body: this.bodyTo('endfilter'),
          },
        ]
      case 'generation':
        return [{ kind: 'generation', body: this.within(false, () => this.bodyTo('endgeneration')) }]
      case 'print':
        return this.print()
      case 'break':
      case 'continue':
        if (!this.inLoop) tokens.fail(`'${name}' outside loop`)
        return [{ kind: name }]
      default:
        if (REFUSED_TAGS.has(name)) throw new UnsupportedError(`the tag ${name}`)
        return tokens.fail(`unknown tag ${name}`)
    }
  }

  private set(): Statement {
    const target = this.target({ namespaces: true })
    if (this.tokens.skip('operator', '=')) return { kind: 'set', target, value: parseTuple(this.tokens) }
    const collected: Expression = { kind: 'collected' }
    const filter = this.filters(collected)
    return { kind: 'set-block', target, filter: filter === collected ? undefined : filter, body: this.bodyTo('endset') }
  }

  /** Further filters behind an operand. */
  private filters(operand: Expression): Expression {
    let result = operand
    while (this.tokens.skip('operator', '|')) result = parseFilter(this.tokens, result)
    return result
  }

  private conditional(): Statement {
    const branches: { test: Expression; body: Statement[] }[] = []
    for (;;) {
      const test = parseTuple(this.tokens, { choices: false })
      branches.push({ test, body: this.body('elif', 'else', 'endif') })
      const end = this.tokens.next().text
      if (end === 'elif') continue
      return { kind: 'if', branches, otherwise: end === 'else' ? this.bodyTo('endif') : [] }
    }
  }

  private loop(): Statement {
    const { tokens } = this
    const target = this.target({ end: 'in' })
    tokens.expect('name', 'in')
    const iterable = parseTuple(tokens, { choices: false, end: 'recursive' })
    const test = tokens.skip('name', 'if') ? parseExpression(tokens) : undefined
    const recursive = tokens.skip('name', 'recursive')
    const body = this.within(true, () => this.body('endfor', 'else'))
    const otherwise = tokens.next().text === 'else' ? this.bodyTo('endfor') : []
    if (declares(target, 'loop')) tokens.fail("can't assign to the special loop variable in a for loop's target")
    return { kind: 'for', target, iterable, test, recursive, body, otherwise }
  }

  private with(): Statement {
    const { tokens } = this
    const assignments: [Target, Expression][] = []
    while (!tokens.is('block_end')) {
      if (assignments.length > 0) tokens.expect('operator', ',')
      const target = this.target({})
      tokens.expect('operator', '=')
      assignments.push([target, parseExpression(tokens)])
    }
    return { kind: 'with', assignments, body: this.bodyTo('endwith') }
  }

  private macro(): Statement {
    const name = this.assignable(this.tokens.expect('name').text)
    const parameters = this.parameters()
    return { kind: 'macro', name, parameters, body: this.within(false, () => this.bodyTo('endmacro')) }
  }

  private call(): Statement {
    const parameters = this.tokens.is('operator', '(') ? this.parameters() : { names: [], defaults: [] }
    const call = parseExpression(this.tokens)
    if (call.kind !== 'call') return this.tokens.fail('expected a call')
    return { kind: 'call-block', call, parameters, body: this.within(false, () => this.bodyTo('endcall')) }
  }

  private parameters(): Parameters {
    const { tokens } = this
    const names: string[] = []
    const defaults: Expression[] = []
    tokens.expect('operator', '(')
    while (!tokens.is('operator', ')')) {
      if (names.length > 0) tokens.expect('operator', ',')
      const name = this.assignable(tokens.expect('name').text)
      if (names.includes(name)) tokens.fail(`duplicate argument '${name}'`)
      names.push(name)
      if (tokens.skip('operator', '=')) defaults.push(parseExpression(tokens))
      else if (defaults.length > 0) tokens.fail('non-default argument follows default argument')
    }
    tokens.next()
    return { names, defaults }
  }

  private print(): Statement[] {
    const printed: Statement[] = []
    while (!this.tokens.is('block_end')) {
      if (printed.length > 0) this.tokens.expect('operator', ',')
      printed.push({ kind: 'print', value: parseExpression(this.tokens) })
    }
    return printed
  }

  /** What is assigned to: a name, names apart by commas, and for `set` also a namespace's member. */
  private target(options: { namespaces?: boolean; end?: string }): Target {
    const { tokens } = this
    const items: Target[] = []
    for (;;) {
      if (items.length > 0) tokens.expect('operator', ',')
      if (isTupleEnd(tokens, options.end)) break
      items.push(this.oneTarget(options.namespaces === true))
      if (!tokens.is('operator', ',')) {
        const [only] = items
        if (items.length === 1) return only as Target
        break
      }
    }
    if (items.length === 0) tokens.fail('expected a name to assign to')
    return { kind: 'tuple', items }
  }

  private oneTarget(namespaces: boolean): Target {
    const { tokens } = this
    if (tokens.skip('operator', '(')) {
      const inner = this.target({ namespaces: false })
      tokens.expect('operator', ')')
      return inner
    }
    const name = this.assignable(tokens.expect('name').text)
    if (!namespaces || !tokens.skip('operator', '.')) return { kind: 'name', name }
    return { kind: 'member', namespace: name, name: tokens.expect('name').text }
  }

  private assignable(name: string): string {
    if (CONSTANTS.has(name)) this.tokens.fail(`can't assign to ${name}`)
    return name
  }
}

function declares(target: Target, name: string): boolean {
  return target.kind === 'tuple' ? target.items.some((item) => declares(item, name)) : target.name === name
}
