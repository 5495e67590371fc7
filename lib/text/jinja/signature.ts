/**
 * Arguments of filters, tests, methods and globals, matched to parameters as Python does.
 */
import type { Budget } from './limits.js'
import { RenderFault } from './errors.js'
import { NO_KEYWORDS, type Keywords, type Value } from './values.js'

/** What built-in functions may use beside their arguments. */
export interface Runtime {
  readonly budget: Budget
  /** Calls a filter or a test by its name, as map and select do. */
  filter(name: Value, value: Value, args: readonly Value[], keywords: Keywords): Value
  test(name: Value, value: Value, args: readonly Value[], keywords: Keywords): boolean
}

/** A built-in: the value that it is applied to, and then its arguments, undefined where one is not given. */
export interface Builtin<Subject> {
  // biome-ignore lint/suspicious/noExplicitAny: every built-in has parameters of its own
  readonly run: (runtime: Runtime, subject: Subject, ...args: any[]) => Value
  /** Undefined: it takes whatever it is given, as (runtime, subject, args, keywords). */
  readonly parameters: readonly Parameter[] | undefined
}

interface Parameter {
  name: string
  optional: boolean
  /** Given by position only. */
  positional: boolean
}

/**
 * `parameters` are names apart by spaces: "old new count?". A question mark marks what may be left out, a leading slash what has no name
 * for callers. "*" takes everything as it comes.
 */
export function builtin<Subject>(parameters: string, run: Builtin<Subject>['run']): Builtin<Subject> {
  if (parameters === '*') return { run, parameters: undefined }
  const words = parameters.split(' ').filter((word) => word !== '')
  return {
    run,
    parameters: words.map((word) => ({
      name: word.replace(/[/?]/g, ''),
      optional: word.endsWith('?'),
      positional: word.startsWith('/'),
    })),
  }
}

export function callBuiltin<Subject>(
  name: string,
  { run, parameters }: Builtin<Subject>,
  runtime: Runtime,
  subject: Subject,
  args: readonly Value[],
  keywords: Keywords = NO_KEYWORDS,
): Value {
  if (parameters === undefined) return run(runtime, subject, args, keywords)
  if (args.length > parameters.length) {
    throw new RenderFault(`${name} takes at most ${parameters.length} arguments, ${args.length} given`)
  }
  if (keywords.size === 0 && args.length === parameters.length) return run(runtime, subject, ...args)
  for (const keyword of keywords.keys()) {
    const place = parameters.findIndex((parameter) => parameter.name === keyword && !parameter.positional)
    if (place < 0) throw new RenderFault(`${name} got an unexpected keyword argument '${keyword}'`)
    if (place < args.length) throw new RenderFault(`${name} got multiple values for argument '${keyword}'`)
  }
  const all = parameters.map((parameter, place) => {
    const value = place < args.length ? args[place] : keywords.get(parameter.name)
    if (value === undefined && !parameter.optional) {
      throw new RenderFault(`${name} misses its argument '${parameter.name}'`)
    }
    return value
  })
  return run(runtime, subject, ...all)
}
