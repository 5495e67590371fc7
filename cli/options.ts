/**
 * Flags whose values are checked before anything is done, and the flags of training, which come from its table of options.
 */
import { InvalidArgumentError, Option } from 'commander'
import { type OptionRow, TRAIN_OPTION_ROWS, TRAIN_OPTIONS, type TrainOptionName } from '../lib/train/option-table.js'
import type { Shape } from '../lib/train/option-values.js'
import { baseOfAdapter } from '../lib/checkpoint/adapter/adapter.js'
import { BORDERS } from '../lib/checkpoint/trained-with.js'
import { tokenOf } from '../lib/checkpoint/head-spec.js'
import { STEP_AGGREGATES, type StepAggregate } from '../lib/data/steps.js'
import { HEAD_AT, HEAD_PLACES, type HeadPlaceOption } from '../lib/models/head-place.js'
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

/** What scoring and evaluation can be told of a head. */
export interface HeadFlags {
  head?: string
  headSpec?: string
  label?: number | string
  labelWeights?: number[] | Record<string, number>
  headAt?: HeadPlaceOption
}

export function headOptions(): Option[] {
  return [
    new Option('--head <file>', "explicit: file with the head (default: the checkpoint's)"),
    new Option('--head-spec <spec>', 'explicit: layers of the head, or logit:TOKEN; a .json file'),
    new Option('--label <n>', 'explicit: which label of a head of several is the reward, by number or name').argParser(
      label,
    ),
    new Option('--label-weights <list>', 'explicit: weights of all labels, or NAME=WEIGHT of some').argParser(
      labelWeights,
    ),
    new Option(
      '--head-at <place>',
      "explicit: last, last-non-pad, token:TOKEN or append:TOKEN (default: as the head's checkpoint says)",
    ).argParser(headAt),
  ]
}

/** What they can be told of process rewards. */
export interface StepFlags {
  steps?: string | number | RegExp
  stepsAggregate?: StepAggregate
  goodToken?: string | number
  badToken?: string | number
}

export function stepOptions(): Option[] {
  return [
    new Option('--steps <end>', 'process rewards: token, or /regex/, that ends a step of a response').argParser(steps),
    choice(
      '--steps-aggregate <how>',
      'reward of the steps: min, mean, last or product (default: min)',
      STEP_AGGREGATES,
    ),
    new Option('--good-token <token>', 'generative, with --steps: token after a good step (default: Yes)').argParser(
      tokenOf,
    ),
    new Option('--bad-token <token>', 'generative, with --steps: token after a bad one').argParser(tokenOf),
  ]
}

/** A token, or a pattern between slashes with flags after it. */
function steps(text: string): string | number | RegExp {
  const pattern = /^\/(.+)\/([a-z]*)$/s.exec(text)
  if (pattern === null) return tokenOf(text)
  try {
    return new RegExp(pattern[1]!, pattern[2])
  } catch (error) {
    throw new InvalidArgumentError((error as Error).message)
  }
}

function headAt(text: string): HeadPlaceOption {
  if (HEAD_AT.test(text)) return text as HeadPlaceOption
  throw new InvalidArgumentError(`It must be one of ${HEAD_PLACES.join(', ')}, token:TOKEN, append:TOKEN.`)
}

function labelWeights(text: string): number[] | Record<string, number> {
  const parts = text.split(',')
  if (!text.includes('=')) return parts.map(number)
  const named: Record<string, number> = {}
  for (const part of parts) {
    const at = part.lastIndexOf('=')
    if (at <= 0) throw new InvalidArgumentError('It must be numbers, or NAME=NUMBER for each label that counts.')
    named[part.slice(0, at)] = number(part.slice(at + 1))
  }
  return named
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
    case 'names':
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
function label(text: string): number | string {
  return /^\d+$/.test(text) ? Number(text) : text
}
