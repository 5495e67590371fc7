/**
 * Flags whose values are checked before anything is done, and the flags of training, which come from its table of options.
 */
import { InvalidArgumentError, Option } from 'commander'
import { type OptionRow, TRAIN_OPTION_ROWS, TRAIN_OPTIONS, type TrainOptionName } from '../lib/train/option-table.js'
import type { Shape } from '../lib/train/option-values.js'
import { baseOfAdapter } from '../lib/checkpoint/adapter/adapter.js'
import { BORDERS } from '../lib/checkpoint/trained-with.js'
import { HEAD_PLACES } from '../lib/models/head-place.js'
import { UsageError } from './exit.js'

/** A flag with a fixed set of values. Its description should name them. */
export function choice(flags: string, description: string, choices: readonly string[]): Option {
  return new Option(flags, description).argParser(oneOf(choices))
}

function oneOf(choices: readonly string[]): (text: string) => string {
  return (text) => {
    if (choices.includes(text)) return text
    throw new InvalidArgumentError(`It must be one of ${choices.join(', ')}.`)
  }
}

export function borderOption(): Option {
  return choice(
    '--border <rule>',
    'tokenize prompt and response whole or separate (default: as trained, else whole)',
    BORDERS,
  )
}

export function headAtOption(): Option {
  return choice(
    '--head-at <token>',
    "explicit: last or last-non-pad (default: as the head's checkpoint says)",
    HEAD_PLACES,
  )
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

/** The flag of an option of training; `help` where its meaning is another one. @throws Error for an option without a flag */
export function trainFlag(name: TrainOptionName, help?: string): Option {
  const row: OptionRow = TRAIN_OPTIONS[name]
  const { flag } = row
  if (flag === undefined) throw new Error(`the option ${name} has no flag`)
  const dashed = name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)
  const argument = flag[0] === '' ? '' : ` ${flag[0]}`
  const option = new Option(`--${row.default === true ? 'no-' : ''}${dashed}${argument}`, help ?? helpOf(row))
  const parse = parser(row.value.shape)
  if (parse === undefined) return option
  const { unit } = row
  return option.argParser(unit === undefined ? parse : (text) => (parse(text, undefined) as number) * unit)
}

/** Options of training that a file may hold. */
export const TRAIN_FILE_OPTIONS = TRAIN_OPTION_ROWS.filter(([, { flag, once }]) => flag !== undefined && !once).map(
  ([name]) => name,
)

function helpOf(row: OptionRow): string {
  const help = row.flag![1]
  const shown = row.shown ?? defaultText(row.default)
  if (shown === undefined) return help
  return help === '' ? `default: ${shown}` : `${help} (default: ${shown})`
}

/** A switch is off, and a list empty, unless it is given: that needs no words. */
function defaultText(value: unknown): string | undefined {
  if (typeof value === 'string') return value
  if (typeof value !== 'number') return undefined
  return value !== 0 && value < 1e-3 ? value.toExponential() : String(value)
}

type Parse = (text: string, previous: unknown) => unknown

function parser(shape: Shape): Parse | undefined {
  switch (shape.is) {
    case 'integer':
      return integer(shape.min, shape.max)
    case 'number':
      return shape.min === Number.MIN_VALUE ? positiveNumber : number
    case 'steps':
      return number
    case 'one':
      return oneOf(shape.of)
    case 'some':
      return (text) => text.split(',')
    case 'sets':
      return (text, sets) => collectSets(text, sets as Record<string, string> | undefined)
    default:
      return undefined
  }
}

function number(text: string): number {
  const value = text.trim() === '' ? Number.NaN : Number(text)
  if (Number.isFinite(value)) return value
  throw new InvalidArgumentError('It must be a number.')
}

/** NAME=FILE, gathered into an object. */
export function collectSets(text: string, sets: Record<string, string> = {}): Record<string, string> {
  const at = text.indexOf('=')
  if (at <= 0 || at === text.length - 1) throw new InvalidArgumentError('It must be NAME=FILE.')
  const name = text.slice(0, at)
  if (Object.hasOwn(sets, name)) throw new InvalidArgumentError(`The name ${name} is there twice.`)
  return { ...sets, [name]: text.slice(at + 1) }
}

/** The folder of --model, or the base that --adapter names. */
export async function modelOf({ model, adapter }: { model?: string; adapter?: string }): Promise<string> {
  if (model !== undefined) return model
  if (adapter !== undefined) return baseOfAdapter(adapter)
  throw new UsageError("required option '--model <dir>' not specified; --adapter DIR may name it instead")
}

/** A label of a head: its number or its name. */
export function label(text: string): number | string {
  return /^\d+$/.test(text) ? Number(text) : text
}
