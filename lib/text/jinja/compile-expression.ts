/**
 * Expressions as functions: a template is compiled once and rendered often.
 */
import { attribute, item, slice } from './access.js'
import { compare, contains, equal, items, setItem, truth } from './compare.js'
import { RenderFault, SyntaxFault } from './errors.js'
import { findFilter, findTest } from './library.js'
import { methodsOf } from './methods.js'
import type { Arguments, Comparison, Expression } from './nodes.js'
import { binary, negate, positive } from './operators.js'
import type { Scope } from './scope.js'
import { str } from './show.js'
import { callBuiltin } from './signature.js'
import { type Dict, type Keywords, NO_KEYWORDS, Tuple, typeName, Undefined, type Value } from './values.js'

/** The variable of the text that a filter or a set block has collected: no name that a template can have. */
export const COLLECTED = '(collected)'

export type Evaluate = (scope: Scope) => Value

/** Where an expression stands. */
export interface Place {
  /** Inside a condition's branch an unknown filter or test is an error only when it is reached, as in Jinja2. */
  conditional: boolean
}

export function compileExpression(node: Expression, place: Place): Evaluate {
  const compile = (inner: Expression): Evaluate => compileExpression(inner, place)
  switch (node.kind) {
    case 'constant': {
      const { value } = node
      return () => value
    }
    case 'name': {
      const { name } = node
      return (scope) => scope.get(name)
    }
    case 'list':
      return evaluateAll(node.items.map(compile))
    case 'tuple': {
      const all = evaluateAll(node.items.map(compile))
      return (scope) => new Tuple(all(scope))
    }
    case 'dict':
      return compileDict(node.entries.map(([key, value]) => [compile(key), compile(value)]))
    case 'attribute': {
      const object = compile(node.object)
      const { name } = node
      return (scope) => attribute(scope.rendering, object(scope), name)
    }
    case 'item': {
      const [object, key] = [compile(node.object), compile(node.key)]
      return (scope) => item(scope.rendering, object(scope), key(scope))
    }
    case 'slice': {
      const object = compile(node.object)
      const bounds = node.bounds.map((bound) => (bound === undefined ? () => null : compile(bound)))
      const [start, stop, step] = bounds as [Evaluate, Evaluate, Evaluate]
      return (scope) => slice(scope.rendering, object(scope), start(scope), stop(scope), step(scope))
    }
    case 'call':
      return compileCall(node, place)
    case 'filter':
      return compileFilter(node, place)
    case 'test':
      return compileTest(node, place)
    case 'not': {
      const operand = compile(node.operand)
      return (scope) => !truth(operand(scope))
    }
    case 'sign': {
      const operand = compile(node.operand)
      return node.negative ? (scope) => negate(operand(scope)) : (scope) => positive(operand(scope))
    }
    case 'binary': {
      const [left, right, { operator }] = [compile(node.left), compile(node.right), node]
      return (scope) => binary(scope.rendering, operator, left(scope), right(scope))
    }
    case 'compare':
      return compileComparison(node, compile)
    case 'concat': {
      const parts = evaluateAll(node.parts.map(compile))
      return (scope) => {
        const texts = parts(scope).map(str)
        scope.rendering.budget.text(texts.reduce((size, text) => size + text.length, 0))
        return texts.join('')
      }
    }
    case 'logic': {
      const [left, right, { or }] = [compile(node.left), compile(node.right), node]
      return (scope) => {
        const value = left(scope)
        return truth(value) === or ? value : right(scope)
      }
    }
    case 'choice':
      return compileChoice(node, { ...place, conditional: true })
    case 'collected':
      return (scope) => scope.get(COLLECTED)
  }
}

function evaluateAll(parts: Evaluate[]): (scope: Scope) => Value[] {
  return (scope) => parts.map((part) => part(scope))
}

function compileDict(entries: [Evaluate, Evaluate][]): Evaluate {
  return (scope) => {
    const dict: Dict = new Map()
    for (const [key, value] of entries) setItem(dict, key(scope), value(scope))
    return dict
  }
}

function compileChoice(node: Expression & { kind: 'choice' }, place: Place): Evaluate {
  const [test, then] = [compileExpression(node.test, place), compileExpression(node.then, place)]
  const otherwise =
    node.otherwise === undefined
      ? () => new Undefined('the inline if-expression evaluated to false and no else section was defined.')
      : compileExpression(node.otherwise, place)
  return (scope) => (truth(test(scope)) ? then(scope) : otherwise(scope))
}

/** a < b < c: each operand is evaluated once, and none after the first that fails. */
function compileComparison(node: Expression & { kind: 'compare' }, compile: (node: Expression) => Evaluate): Evaluate {
  const first = compile(node.first)
  const others = node.others.map(([operator, operand]) => [COMPARISONS[operator], compile(operand)] as const)
  const [only] = others
  if (others.length === 1 && only !== undefined) {
    const [holds, second] = only
    return (scope) => holds(first(scope), second(scope), scope)
  }
  return (scope) => {
    let left = first(scope)
    return others.every(([holds, operand]) => {
      const right = operand(scope)
      const result = holds(left, right, scope)
      left = right
      return result
    })
  }
}

const COMPARISONS: Readonly<Record<Comparison, (left: Value, right: Value, scope: Scope) => boolean>> = {
  '==': (left, right, scope) => counted(scope, left) && equal(left, right),
  '!=': (left, right, scope) => counted(scope, left) && !equal(left, right),
  '<': (left, right) => compare(left, right, '<') < 0,
  '<=': (left, right) => compare(left, right, '<=') <= 0,
  '>': (left, right) => compare(left, right, '>') > 0,
  '>=': (left, right) => compare(left, right, '>=') >= 0,
  in: (left, right, scope) => counted(scope, right) && contains(right, left),
  'not in': (left, right, scope) => counted(scope, right) && !contains(right, left),
}

/** Counts the work of going through a value. */
function counted({ rendering }: Scope, value: Value): true {
  if (typeof value === 'string') rendering.budget.scan(value.length)
  else if (Array.isArray(value)) rendering.budget.step(value.length)
  return true
}

function compileCall({ callee, arguments: given }: Expression & { kind: 'call' }, place: Place): Evaluate {
  const evaluate = compileArguments(given, place)
  if (callee.kind !== 'attribute') {
    const target = compileExpression(callee, place)
    return (scope) => scope.rendering.call(target(scope), ...evaluate(scope))
  }
  const object = compileExpression(callee.object, place)
  const { name } = callee
  return (scope) => {
    const subject = object(scope)
    const method = methodsOf(subject)?.get(name)
    if (method === undefined) return scope.rendering.call(attribute(scope.rendering, subject, name), ...evaluate(scope))
    scope.rendering.budget.step()
    return callBuiltin(`${typeName(subject)}.${name}`, method, scope.rendering, subject as never, ...evaluate(scope))
  }
}

export type EvaluateArguments = (scope: Scope) => [args: Value[], keywords: Keywords]

export function compileArguments(given: Arguments, place: Place): EvaluateArguments {
  const args = evaluateAll(given.args.map((each) => compileExpression(each, place)))
  const named = given.keywords.map(([name, value]) => [name, compileExpression(value, place)] as const)
  const moreArgs = given.moreArgs && compileExpression(given.moreArgs, place)
  const moreKeywords = given.moreKeywords && compileExpression(given.moreKeywords, place)
  if (named.length === 0 && moreArgs === undefined && moreKeywords === undefined) {
    return (scope) => [args(scope), NO_KEYWORDS]
  }
  return (scope) => {
    const all = args(scope)
    if (moreArgs !== undefined) all.push(...items(moreArgs(scope)))
    const keywords = new Map(named.map(([name, value]) => [name, value(scope)]))
    if (moreKeywords !== undefined) addKeywords(keywords, moreKeywords(scope))
    return [all, keywords]
  }
}

function addKeywords(keywords: Map<string, Value>, more: Value): void {
  if (!(more instanceof Map)) throw new RenderFault(`argument after ** must be a mapping, not ${typeName(more)}`)
  for (const [name, value] of more) {
    if (typeof name !== 'string') throw new RenderFault('keywords must be strings')
    if (keywords.has(name)) throw new RenderFault(`got multiple values for keyword argument '${name}'`)
    keywords.set(name, value)
  }
}

function compileFilter(node: Expression & { kind: 'filter' }, place: Place): Evaluate {
  const { name } = node
  const operand = compileExpression(node.operand, place)
  const evaluate = compileArguments(node.arguments, place)
  const filter = findFilter(name)
  if (filter === undefined) return unknown('filter', name, place)
  return (scope) => callBuiltin(name, filter, scope.rendering, operand(scope), ...evaluate(scope))
}

function compileTest(node: Expression & { kind: 'test' }, place: Place): Evaluate {
  const { name } = node
  const operand = compileExpression(node.operand, place)
  const evaluate = compileArguments(node.arguments, place)
  const test = findTest(name)
  if (test === undefined) return unknown('test', name, place)
  return (scope) => truth(callBuiltin(name, test, scope.rendering, operand(scope), ...evaluate(scope)))
}

function unknown(kind: string, name: string, place: Place): Evaluate {
  if (!place.conditional) throw new SyntaxFault(`no ${kind} named '${name}'`)
  return () => {
    throw new RenderFault(`no ${kind} named '${name}' found`)
  }
}
