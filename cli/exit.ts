/**
 * How commands end: exit statuses, and error messages for the terminal.
 */
import { CommanderError } from 'commander'
import { ImplexError } from '../lib/core/errors.js'

export const EXIT = { done: 0, failed: 1, usage: 2, interrupted: 130 } as const

/** Wrong usage that the flag parser cannot detect, such as two flags that exclude each other. */
export class UsageError extends Error {}

/** The reader of standard output closed it (`| head -5`). This is not a failure. */
export class OutputClosed extends Error {}

/** Prints what went wrong on stderr. @returns the exit status */
export function report(error: unknown): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT.done : EXIT.usage // commander has written already
  if (error instanceof OutputClosed) return EXIT.done
  if (error instanceof ImplexError) {
    say(`${error.message} [${error.code}]`)
    return error.code === 'ERR_ABORTED' ? EXIT.interrupted : EXIT.failed
  }
  if (error instanceof UsageError || isArgumentError(error)) {
    say(`${error.message}\nSee implex --help.`)
    return EXIT.usage
  }
  say(`this is a bug in implex; please report it with the output of implex doctor:\n${stackOf(error)}`)
  return EXIT.failed
}

export function say(message: string): void {
  const clear = process.stderr.isTTY ? '\r\x1b[K' : '' // the line of progress, if there is one
  process.stderr.write(`${clear}implex: ${message}\n`)
}

function isArgumentError(error: unknown): error is Error {
  const code = (error as { code?: unknown } | null)?.code
  return error instanceof Error && (code === 'ERR_INVALID_ARG_TYPE' || code === 'ERR_OUT_OF_RANGE')
}

function stackOf(error: unknown): string {
  return error instanceof Error ? (error.stack ?? error.message) : String(error)
}
