/**
 * Statements as functions.
 */
import { compileTarget } from './assign.js'
import { truth } from './compare.js'
import { COLLECTED, compileArguments, compileExpression, type Place } from './compile-expression.js'
import { RenderFault } from './errors.js'
import { type Block, Flow } from './flow.js'
import { compileLoop } from './loop.js'
import { compileMacro } from './macro.js'
import { weight } from './mentions.js'
import type { Expression, Statement } from './nodes.js'
import type { Scope } from './scope.js'
import { str } from './show.js'
import { type Value, textOf, typeName } from './values.js'

const NO_PARAMETERS = { names: [], defaults: [] }

export function compileBlock(statements: readonly Statement[], place: Place): Block {
  const steps = statements.map((statement) => compileStatement(statement, place))
  // A step of the budget for every 16 nodes, so that long bodies count as the work that they are.
  const cost = 1 + (statements.reduce((sum, statement) => sum + weight(statement), 0) >> 4)
  return (scope) => {
    scope.rendering.budget.step(cost)
    for (const step of steps) {
      const flow = step(scope)
      if (flow !== Flow.Next) return flow
    }
    return Flow.Next
  }
}

function compileStatement(node: Statement, place: Place): Block {
  switch (node.kind) {
    case 'text': {
      const { text } = node
      return (scope) => write(scope, text)
    }
    case 'print': {
      const value = compileExpression(node.value, place)
      return (scope) => write(scope, str(value(scope)))
    }
    case 'set': {
      const [assign, value] = [compileTarget(node.target), compileExpression(node.value, place)]
      return (scope) => {
        assign(scope, value(scope))
        return Flow.Next
      }
    }
    case 'set-block':
      return compileSetBlock(node)
    case 'if':
      return compileIf(node, { ...place, conditional: true })
    case 'for':
      return compileLoop(node, place, compileBlock)
    case 'with':
      return compileWith(node, place)
    case 'filter-block':
      return compileFilterBlock(node)
    case 'macro': {
      const { name } = node
      const make = compileMacro(name, node.parameters, node.body, compileBlock)
      return (scope) => {
        scope.set(name, make(scope))
        return Flow.Next
      }
    }
    case 'call-block':
      return compileCallBlock(node, place)
    case 'generation': {
      const make = compileMacro('caller', NO_PARAMETERS, node.body, compileBlock)
      return (scope) => write(scope, str(make(scope).call([], new Map())))
    }
    case 'break':
      return () => Flow.Break
    case 'continue':
      return () => Flow.Continue
  }
}

function write(scope: Scope, text: string): Flow {
  scope.rendering.write(text)
  return Flow.Next
}

/** What a block without text of its own gives to the output: only text can be written. */
function writeValue(scope: Scope, value: Value): Flow {
  const text = textOf(value)
  if (text === undefined) throw new RenderFault(`expected str instance, ${typeName(value)} found`)
  return write(scope, text)
}

function compileIf(node: Statement & { kind: 'if' }, place: Place): Block {
  const branches = node.branches.map(({ test, body }) => ({
    test: compileExpression(test, place),
    body: compileBlock(body, place),
  }))
  const otherwise = compileBlock(node.otherwise, place)
  return (scope) => {
    for (const { test, body } of branches) if (truth(test(scope))) return body(scope)
    return otherwise(scope)
  }
}

/** Values are evaluated outside of the block, targets set inside. */
function compileWith(node: Statement & { kind: 'with' }, place: Place): Block {
  const assignments = node.assignments.map(
    ([target, value]) => [compileTarget(target), compileExpression(value, place)] as const,
  )
  const body = compileBlock(node.body, { conditional: false })
  return (scope) => {
    const inner = scope.inner()
    for (const [assign, value] of assignments) assign(inner, value(scope))
    return body(inner)
  }
}

/** Runs a block in a scope of its own; a break or continue leaves before `use` sees what it has written. */
function collecting(statements: readonly Statement[], use: (scope: Scope, inner: Scope, text: string) => void): Block {
  const body = compileBlock(statements, { conditional: false })
  return (scope) => {
    const inner = scope.inner()
    const { text, result } = scope.rendering.collect(() => body(inner))
    if (result === Flow.Next) use(scope, inner, text)
    return result
  }
}

/** The collected text, or what filters make of it. */
function overCollected(filter: Expression | undefined): (inner: Scope, text: string) => Value {
  if (filter === undefined) return (_, text) => text
  const evaluate = compileExpression(filter, { conditional: false })
  return (inner, text) => {
    inner.set(COLLECTED, text)
    return evaluate(inner)
  }
}

function compileSetBlock(node: Statement & { kind: 'set-block' }): Block {
  const [assign, evaluate] = [compileTarget(node.target), overCollected(node.filter)]
  return collecting(node.body, (scope, inner, text) => assign(scope, evaluate(inner, text)))
}

function compileFilterBlock(node: Statement & { kind: 'filter-block' }): Block {
  const evaluate = overCollected(node.filter)
  return collecting(node.body, (scope, inner, text) => {
    writeValue(scope, evaluate(inner, text))
  })
}

function compileCallBlock(node: Statement & { kind: 'call-block' }, place: Place): Block {
  const make = compileMacro('caller', node.parameters, node.body, compileBlock)
  const callee = compileExpression(node.call.callee, place)
  const evaluate = compileArguments(node.call.arguments, place)
  return (scope) => {
    const [args, keywords] = evaluate(scope)
    return writeValue(scope, scope.rendering.call(callee(scope), args, new Map(keywords).set('caller', make(scope))))
  }
}
