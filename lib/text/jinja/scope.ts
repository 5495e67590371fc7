/**
 * What a compiled template runs in: the state of one rendering, and the variables of nested blocks.
 */
import { RenderFault } from './errors.js'
import { namedBuiltin } from './library.js'
import { Budget } from './limits.js'
import { callBuiltin, type Runtime } from './signature.js'
import { truth } from './compare.js'
import { Callable, type Keywords, NO_KEYWORDS, typeName, Undefined, type Value } from './values.js'

/** One rendering. */
export class Rendering implements Runtime {
  readonly budget: Budget
  /** What is written so far. */
  output = ''

  constructor(poll: (() => void) | undefined) {
    this.budget = new Budget(poll)
  }

  write(text: string): void {
    this.budget.text(this.output.length + text.length)
    this.output += text
  }

  /** Runs `body` and gives what it writes, apart from the output so far. */
  collect<T>(body: () => T): { text: string; result: T } {
    const before = this.output
    this.output = ''
    const result = body()
    const text = this.output
    this.output = before
    return { text, result }
  }

  filter(name: Value, value: Value, args: readonly Value[], keywords: Keywords): Value {
    const named = namedBuiltin('filter', name)
    return callBuiltin(named.name, named.found, this, value, args, keywords)
  }

  test(name: Value, value: Value, args: readonly Value[], keywords: Keywords): boolean {
    const named = namedBuiltin('test', name)
    return truth(callBuiltin(named.name, named.found, this, value, args, keywords))
  }

  call(callee: Value, args: readonly Value[], keywords: Keywords = NO_KEYWORDS): Value {
    this.budget.step()
    if (callee instanceof Callable) return callee.call(args, keywords)
    if (callee instanceof Undefined) callee.fail()
    throw new RenderFault(`'${typeName(callee)}' object is not callable`)
  }
}

/** The variables of a block; what it lacks is looked up around it. */
export class Scope {
  private readonly variables = new Map<string, Value>()

  constructor(
    readonly rendering: Rendering,
    private readonly outer?: Scope,
  ) {}

  get(name: string): Value {
    const found = this.find(name)
    return found === undefined ? new Undefined(`'${name}' is undefined`) : found
  }

  private find(name: string): Value | undefined {
    const own = this.variables.get(name)
    return own === undefined ? this.outer?.find(name) : own
  }

  set(name: string, value: Value): void {
    this.variables.set(name, value)
  }

  inner(): Scope {
    return new Scope(this.rendering, this)
  }
}
