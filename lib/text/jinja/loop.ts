/**
 * For loops, and the variable `loop` inside them.
 */
import { Attributed } from './access.js'
import { compileExpression, type Evaluate, type Place } from './compile-expression.js'
import { type Assign, compileTarget } from './assign.js'
import { equal, items, truth } from './compare.js'
import { type Block, type Compile, Flow } from './flow.js'
import type { ForStatement } from './nodes.js'
import type { Scope } from './scope.js'
import { RenderFault } from './errors.js'
import { Callable, orUndefined, Tuple, Undefined, type Value } from './values.js'

interface Parts {
  assign: Assign
  iterable: Evaluate
  test: Evaluate | undefined
  recursive: boolean
  body: Block
  otherwise: Block
}

export function compileLoop(node: ForStatement, place: Place, compile: Compile): Block {
  const inside: Place = { conditional: false }
  const parts: Parts = {
    assign: compileTarget(node.target),
    iterable: compileExpression(node.iterable, place),
    test: node.test && compileExpression(node.test, inside),
    recursive: node.recursive,
    body: compile(node.body, inside),
    otherwise: compile(node.otherwise, inside),
  }
  return (scope) => iterateLoop(scope, parts, parts.iterable(scope), 0)
}

function iterateLoop(scope: Scope, parts: Parts, iterable: Value, depth: number): Flow {
  const { budget } = scope.rendering
  let list = items(iterable)
  budget.step(list.length)
  if (parts.test !== undefined) list = filtered(scope, parts.assign, parts.test, list)
  const loop = new Loop(list, depth, parts.recursive ? (inner) => recurse(scope, parts, inner, depth + 1) : undefined)
  for (const value of list) {
    const inner = scope.inner()
    inner.set('loop', loop)
    parts.assign(inner, value)
    const flow = parts.body(inner)
    if (flow === Flow.Break) return Flow.Next
    loop.advance()
  }
  return list.length === 0 ? parts.otherwise(scope.inner()) : Flow.Next
}

function filtered(scope: Scope, assign: Assign, test: Evaluate, list: readonly Value[]): Value[] {
  return list.filter((value) => {
    const inner = scope.inner()
    assign(inner, value)
    return truth(test(inner))
  })
}

function recurse(scope: Scope, parts: Parts, iterable: Value, depth: number): string {
  const { rendering } = scope
  return rendering.budget.nested(() => rendering.collect(() => iterateLoop(scope, parts, iterable, depth)).text)
}

/** The variable `loop`. In a recursive loop it can be called. */
class Loop extends Attributed {
  override readonly type = 'LoopContext'
  private index = 0
  private lastChanged: Tuple | undefined

  constructor(
    private readonly list: readonly Value[],
    private readonly depth: number,
    recurse: ((iterable: Value) => string) | undefined,
  ) {
    super('loop', (args) => {
      if (recurse === undefined) throw new RenderFault("The loop must have the 'recursive' marker enabled.")
      const [iterable] = args
      if (iterable === undefined || args.length > 1) throw new RenderFault('loop takes one argument')
      return recurse(iterable)
    })
  }

  advance(): void {
    this.index++
  }

  attribute(name: string): Value | undefined {
    const { index, list, depth } = this
    switch (name) {
      case 'index':
        return index + 1
      case 'index0':
        return index
      case 'revindex':
        return list.length - index
      case 'revindex0':
        return list.length - index - 1
      case 'first':
        return index === 0
      case 'last':
        return index === list.length - 1
      case 'length':
        return list.length
      case 'depth':
        return depth + 1
      case 'depth0':
        return depth
      case 'previtem':
        return index === 0 ? new Undefined('there is no previous item') : (list[index - 1] as Value)
      case 'nextitem':
        return orUndefined(list[index + 1], 'there is no next item')
      case 'cycle':
        return new Callable('loop.cycle', (args) => {
          if (args.length === 0) throw new RenderFault('no items for cycling given')
          return args[index % args.length] as Value
        })
      case 'changed':
        return new Callable('loop.changed', (args) => this.changed(new Tuple(args)))
      default:
        return undefined
    }
  }

  private changed(value: Tuple): boolean {
    const same = this.lastChanged !== undefined && equal(this.lastChanged, value)
    this.lastChanged = value
    return !same
  }
}
