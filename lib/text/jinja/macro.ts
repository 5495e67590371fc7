/**
 * Macros, and the bodies of call and generation blocks, which are macros without a name.
 */
import { compileExpression, type Evaluate } from './compile-expression.js'
import { RenderFault } from './errors.js'
import type { Block, Compile } from './flow.js'
import { mentions } from './mentions.js'
import type { Parameters, Statement } from './nodes.js'
import type { Scope } from './scope.js'
import { Callable, type Keywords, Tuple, Undefined, type Value } from './values.js'

interface Parts {
  name: string
  names: readonly string[]
  defaults: readonly (Evaluate | undefined)[]
  body: Block
  /** Which of the names that a macro has without declaring them its body uses. */
  caller: boolean
  varargs: boolean
  kwargs: boolean
}

/** A function that makes the macro in the scope where it is defined. */
export function compileMacro(
  name: string,
  { names, defaults }: Parameters,
  statements: readonly Statement[],
  compile: Compile,
): (scope: Scope) => Callable {
  const missing = names.length - defaults.length
  const has = (special: string): boolean => !names.includes(special) && mentions(statements, special)
  const parts: Parts = {
    name,
    names,
    defaults: names.map((_, index) => {
      const value = defaults[index - missing]
      return value && compileExpression(value, { conditional: false })
    }),
    body: compile(statements, { conditional: false }),
    caller: has('caller'),
    varargs: has('varargs'),
    kwargs: has('kwargs'),
  }
  return (scope) => new Macro(name, (args, keywords) => callMacro(scope, parts, args, keywords))
}

class Macro extends Callable {
  override readonly type = 'macro'
}

function callMacro(scope: Scope, parts: Parts, args: readonly Value[], keywords: Keywords): string {
  const { rendering } = scope
  const inner = scope.inner()
  bind(inner, parts, args, keywords)
  rendering.budget.step()
  return rendering.budget.nested(() => rendering.collect(() => parts.body(inner)).text)
}

function bind(inner: Scope, parts: Parts, args: readonly Value[], keywords: Keywords): void {
  const { name, names, defaults } = parts
  const rest = new Map<Value, Value>(keywords)
  for (const [index, parameter] of names.entries()) {
    const given = index < args.length ? args[index] : rest.get(parameter)
    if (index >= args.length) rest.delete(parameter)
    const value = given === undefined ? defaults[index]?.(inner) : given
    inner.set(parameter, value === undefined ? new Undefined(`parameter '${parameter}' was not provided`) : value)
  }
  if (parts.caller) {
    inner.set('caller', rest.get('caller') ?? new Undefined('No caller defined'))
    rest.delete('caller')
  }
  if (parts.kwargs) inner.set('kwargs', rest)
  else if (rest.size > 0) {
    throw new RenderFault(`macro '${name}' takes no keyword argument '${String(rest.keys().next().value)}'`)
  }
  if (parts.varargs) inner.set('varargs', new Tuple(args.slice(names.length)))
  else if (args.length > names.length) {
    throw new RenderFault(`macro '${name}' takes not more than ${names.length} argument(s)`)
  }
}
