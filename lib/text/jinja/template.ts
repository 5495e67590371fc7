/**
 * Jinja2 as chat templates use it: compiled once, rendered often. Renders what Jinja2 renders, byte for byte, or refuses by name.
 */
import { compileBlock } from './compile.js'
import { LimitError, SyntaxFault, UnsupportedError } from './errors.js'
import type { Block } from './flow.js'
import { GLOBALS } from './globals.js'
import { REFUSED_GLOBALS } from './library.js'
import { withBudget } from './limits.js'
import { mentions } from './mentions.js'
import { parse } from './parse.js'
import { Rendering, Scope } from './scope.js'
import { Callable, fromJavaScript, type Value } from './values.js'

export type Context = Readonly<Record<string, unknown>>

export interface TemplateOptions {
  /** Functions that the template may call, by name. */
  functions?: Readonly<Record<string, (...args: Value[]) => Value>>
}

export class JinjaTemplate {
  private readonly body: Block
  private readonly globals = new Map<string, Value>(GLOBALS)

  /** Throws a SyntaxFault for what is not Jinja, an UnsupportedError for what only Jinja2 itself can do. */
  constructor(source: string, options: TemplateOptions = {}) {
    for (const [name, call] of Object.entries(options.functions ?? {})) {
      this.globals.set(name, new Callable(name, (args) => call(...args)))
    }
    this.body = guarded(
      () => {
        const statements = parse(source)
        for (const name of REFUSED_GLOBALS) {
          if (mentions(statements, name)) throw new UnsupportedError(`the function ${name}`)
        }
        return compileBlock(statements, { conditional: false })
      },
      (message) => new SyntaxFault(message),
    )
  }

  /** `poll` is called now and then while the template runs; what it throws ends the rendering. */
  render(context: Context, poll?: () => void): string {
    const rendering = new Rendering(poll)
    const globals = new Scope(rendering)
    for (const [name, value] of this.globals) globals.set(name, value)
    const run = (): string => {
      const scope = globals.inner()
      for (const [name, value] of Object.entries(context)) {
        if (value !== undefined) scope.set(name, fromJavaScript(value))
      }
      this.body(scope)
      return rendering.output
    }
    return guarded(
      () => withBudget(rendering.budget, run),
      (message) => new LimitError(message),
    )
  }
}

/** What is nested too deeply for the machine's stack is an error like any other. */
function guarded<T>(work: () => T, fault: (message: string) => Error): T {
  try {
    return work()
  } catch (cause) {
    if (cause instanceof RangeError && /call stack/.test(cause.message)) throw fault('it is nested too deeply')
    throw cause
  }
}
