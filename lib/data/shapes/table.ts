/**
 * The table of row shapes, and which of them a row has. A row's keys tell, null counting as absent; where two shapes have the same keys
 * the values' types do. A row that fits none or several is refused.
 */
import type { RowFields } from '../row-fields.js'
import { benchmarkShapes } from './benchmarks.js'
import type { RowShapeName } from './names.js'
import { plainShapes } from './plain.js'
import { preferenceShapes } from './preferences.js'
import type { RowShape } from './shape.js'
import { trainerShapes } from './trainers.js'

export const ROW_SHAPES: readonly RowShape[] = [
  ...plainShapes,
  ...benchmarkShapes,
  ...preferenceShapes,
  ...trainerShapes,
]

const byName = new Map(ROW_SHAPES.map((shape) => [shape.name, shape]))

const FOR_TEMPLATE = ['system', 'tools', 'documents', 'chat_template_kwargs']

/** Keys that are read in a row of any shape. */
const COMMON = ['id', 'margin', ...FOR_TEMPLATE]

/** Keys that are about the row and not part of what is asked or answered; of any shape. */
export const BOOKKEEPING: readonly string[] = (
  'index idx row_id prompt_id uuid source dataset subset split domain category subcategory task task_id type tags language lang url ' +
  'created timestamp turns num_turns model models chosen_model rejected_model chosen-model rejected-model score scores rating ratings ' +
  'score_chosen score_rejected chosen_score rejected_score rating_chosen rating_rejected chosen_rating rejected_rating chosen-rating ' +
  'rejected-rating chosen_avg_rating rejected_avg_rating'
).split(' ')

/** Keys under which data with pictures and sound keeps them. */
const MEDIA = ['image', 'images', 'video', 'videos', 'audio', 'audios']

/** What rows with the same keys have in common. */
export interface RowPlan {
  /** Those that have values. */
  keys: readonly string[]
  /** Shapes whose keys these are. */
  candidates: readonly RowShape[]
  /** Keys that the shape does not read, without those that need no word. */
  unread(shape: RowShape): readonly string[]
  media: readonly string[]
  /** Whether a template is given something besides messages, or a system message. */
  forTemplate: boolean
}

const plans = new Map<string, RowPlan>()
const MAX_PLANS = 1000
/** A file's rows have the same keys, mostly. */
let last: RowPlan | undefined

export function planOf(row: Readonly<Record<string, unknown>>): RowPlan {
  if (last !== undefined && hasKeys(row, last.keys)) return last
  const keys = Object.keys(row).filter((key) => row[key] !== null && row[key] !== undefined)
  const signature = JSON.stringify(keys)
  let plan = plans.get(signature)
  if (plan === undefined) {
    if (plans.size === MAX_PLANS) plans.clear()
    plan = makePlan(keys)
    plans.set(signature, plan)
  }
  last = plan
  return plan
}

/** Whether these are the row's keys that have values, in this order. */
function hasKeys(row: Readonly<Record<string, unknown>>, keys: readonly string[]): boolean {
  let i = 0
  for (const key in row) {
    if (row[key] === null || row[key] === undefined) continue
    if (keys[i++] !== key) return false
  }
  return i === keys.length
}

function makePlan(keys: readonly string[]): RowPlan {
  const has = new Set(keys)
  const unread = new Map<RowShape, readonly string[]>()
  return {
    keys,
    forTemplate: FOR_TEMPLATE.some((key) => has.has(key)),
    candidates: ROW_SHAPES.filter(
      (shape) => shape.keys.every((key) => has.has(key)) && !shape.without?.some((key) => has.has(key)),
    ),
    unread(shape) {
      let names = unread.get(shape)
      if (names === undefined) {
        const spoken = new Set([
          ...COMMON,
          ...BOOKKEEPING,
          ...shape.keys,
          ...(shape.optional ?? []),
          ...(shape.leaves ?? []),
          ...MEDIA,
        ])
        names = keys.filter((key) => !spoken.has(key))
        unread.set(shape, names)
      }
      return names
    },
    media: keys.filter((key) => MEDIA.includes(key)),
  }
}

/** The shape with this name, or the one that the row fits. @throws ImplexError naming the keys seen and the shapes it could be */
export function shapeOf(fields: RowFields, plan: RowPlan, name: RowShapeName | undefined): RowShape {
  if (name !== undefined) return byName.get(name)!
  const { candidates } = plan
  if (candidates.length === 1) return candidates[0]!
  const fits = (shape: RowShape) => shape.fits?.(fields.row) ?? true
  const first = candidates.findIndex(fits)
  if (first >= 0 && !candidates.some((shape, i) => i > first && fits(shape))) return candidates[first]!
  const fitting = candidates.filter(fits)
  throw fields.fail(fitting.length > 1 ? mixed(fields, fitting) : unknown(fields, candidates))
}

function mixed(fields: RowFields, fitting: readonly RowShape[]): string {
  return `${keysOf(fields)} fit the shapes ${fitting.map(({ name }) => name).join(' and ')}; say which it is (--rows, option rows)`
}

function unknown(fields: RowFields, candidates: readonly RowShape[]): string {
  if (candidates.length > 0) {
    const names = candidates.map(({ name }) => name).join(' or ')
    return `${keysOf(fields)} are those of ${names}, but not their values; say which it is (--rows, option rows) to see what is wrong`
  }
  const missing = (shape: RowShape) => shape.keys.filter((key) => !fields.has(key))
  /** Of two as near, the one that most rows have. */
  const usual = ({ name }: RowShape) => (name === 'pair' || name === 'group' ? 1 : 0)
  const near = ROW_SHAPES.filter((shape) => shape.keys.some((key) => fields.has(key)))
    .sort((a, b) => missing(a).length - usual(a) - (missing(b).length - usual(b)))
    .map((shape) => {
      const lacks = missing(shape)
      if (lacks.length > 0) return `${shape.name} lacks ${quoted(lacks)}`
      return `${shape.name} has no ${quoted(shape.without!.filter((key) => fields.has(key)))}`
    })
    .slice(0, 3)
  const could = near.length > 0 ? near.join(', ') : 'a row is {prompt, chosen, rejected} or {prompt, responses}'
  return `no known shape of row has ${keysOf(fields)}: ${could}; docs/formats.md lists the shapes`
}

function keysOf({ row }: RowFields): string {
  const keys = Object.keys(row).filter((key) => row[key] !== null && row[key] !== undefined)
  if (keys.length === 0) return 'no keys with values'
  const shown = keys.slice(0, 12)
  return `the keys ${quoted(shown)}${keys.length > shown.length ? ` and ${keys.length - shown.length} more` : ''}`
}

function quoted(keys: readonly string[]): string {
  return keys.map((key) => JSON.stringify(key)).join(', ')
}
