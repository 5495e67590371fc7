/**
 * Skipping a test for a reason that the run shows: `return skip('../shared is absent')` inside a test, or `skip(reason)` at the top of a
 * file that then registers no tests. uvu counts a test that returns early as passed; test/run.ts reads the lines printed here and
 * counts those as skipped instead.
 */

/** Prints `SKIP <file>:<line>: <reason>` from inside a test, `SKIP <file>: <reason>` from outside. Call it once per test. */
export function skip(reason: string): void {
  const limit = Error.stackTraceLimit
  Error.stackTraceLimit = Number.POSITIVE_INFINITY
  const stack = new Error().stack ?? ''
  Error.stackTraceLimit = limit
  const [, file, line] = /([^/\s(]+\.test\.[jt]s):(\d+):\d+/.exec(stack) ?? [undefined, 'unknown.test.ts', '0']
  const insideTest = /[\\/]uvu[\\/]dist[\\/]/.test(stack)
  // uvu prints its bullets without a newline, hence the first one.
  process.stdout.write(`\nSKIP ${file}${insideTest ? `:${line}` : ''}: ${reason.replaceAll('\n', ' ')}\n`)
}
