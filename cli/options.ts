/**
 * Flags whose values are checked before anything is done.
 */
import { InvalidArgumentError, Option } from 'commander'

/** A flag with a fixed set of values. Its description should name them. */
export function choice(flags: string, description: string, choices: readonly string[]): Option {
  return new Option(flags, description).argParser((text) => {
    if (choices.includes(text)) return text
    throw new InvalidArgumentError(`It must be one of ${choices.join(', ')}.`)
  })
}

export function integer(min: number, max = Number.MAX_SAFE_INTEGER): (text: string) => number {
  return (text) => {
    const value = /^\d+$/.test(text) ? Number(text) : Number.NaN
    if (value >= min && value <= max) return value
    const most = max === Number.MAX_SAFE_INTEGER ? '' : ` and at most ${max}`
    throw new InvalidArgumentError(`It must be a whole number of at least ${min}${most}.`)
  }
}

export function positiveNumber(text: string): number {
  const value = text.trim() === '' ? Number.NaN : Number(text)
  if (value > 0 && Number.isFinite(value)) return value
  throw new InvalidArgumentError('It must be a number above 0.')
}
