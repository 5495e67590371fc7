/**
 * Fills in and checks the options of a training, by the table.
 */
import { resolve } from 'node:path'
import { checkObject, checkOneOf, outOfRange } from '../core/arguments.js'
import {
  applies,
  type OptionRow,
  TRAIN_OPTION_ROWS,
  TRAIN_OPTIONS,
  type TrainOptionName,
  whose,
} from './option-table.js'
import { RECIPES } from './recipes.js'
import { ALL_LINEAR, RECIPE_NAMES, type TrainConduct, type TrainOptions, type TrainSettings } from './options.js'

type Later = 'microBatchTokens' | 'border' | 'headAt'

export interface ResolvedOptions {
  /** Without what the device or the checkpoint decides. */
  settings: Omit<TrainSettings, Later> & Partial<Pick<TrainSettings, Later>>
  conduct: TrainConduct
}

/** Checks every option and fills in the defaults. @throws TypeError, RangeError naming the option */
export function resolveTrainOptions(options: TrainOptions): ResolvedOptions {
  checkObject('options', options)
  const given = options as Partial<Record<TrainOptionName, unknown>>
  const { recipe: named = TRAIN_OPTIONS.recipe.default } = options
  checkOneOf('recipe', named, RECIPE_NAMES)
  const recipe: Partial<Record<TrainOptionName, unknown>> = RECIPES[named].defaults
  const all: Partial<Record<TrainOptionName, unknown>> = {}
  for (const [name, row] of TRAIN_OPTION_ROWS) {
    const value = given[name] ?? recipe[name] ?? row.default ?? row.make?.()
    const required = name === 'kind' || name === 'out'
    if (value !== undefined || required) (row.value.check as (name: string, value: unknown) => void)(name, value)
    if (value !== undefined) all[name] = value
  }
  const pick = (decides: boolean) =>
    TRAIN_OPTION_ROWS.filter(([name, row]) => (row.decides ?? false) === decides && name in all).map(([name]) => [
      name,
      all[name],
    ])
  // These two last, as config.json always had them.
  const { evaluateEpochs, microBatchTokens, ...others } = Object.fromEntries(pick(true)) as Settings
  const settings: Settings = { ...others, evaluateEpochs, ...(microBatchTokens && { microBatchTokens }) }
  const conduct = Object.fromEntries(pick(false)) as unknown as TrainConduct

  // An option that the kind or the optimizer would ignore is a misunderstanding worth an error.
  for (const [name, row] of TRAIN_OPTION_ROWS) {
    if (given[name] !== undefined && !applies(row, settings))
      throw outOfRange(name, `left out: it is for ${whose(row)} only`, given[name])
  }
  const { kind, freeze, headAt, pool, onLong } = settings
  const { kind: trained = kind } = RECIPES[named]
  if (kind !== trained) throw outOfRange('recipe', `one for the ${kind} kind: ${named} is for ${trained}`, named)
  if (onLong === 'truncate-end' && kind !== 'implicit' && kind !== 'sft')
    throw outOfRange('onLong', `another choice: the ${kind} kind reads the end of a sequence`, onLong)
  if (headAt !== undefined && pool !== 'last')
    throw outOfRange('headAt', 'left out: it is for the explicit kind with pool last only', headAt)
  if (settings.loraRank !== undefined) {
    settings.loraAlpha ??= 2 * settings.loraRank
    const other = freeze.find((part) => part !== 'head')
    if (other !== undefined)
      throw outOfRange('freeze', 'left out, or "head": with loraRank the model itself stays as it is', other)
    if (settings.loraTargets.includes(ALL_LINEAR) && settings.loraTargets.length > 1)
      throw outOfRange('loraTargets', `names, or ${ALL_LINEAR} alone`, settings.loraTargets)
  }
  if (freeze.includes('all-but-head') && kind !== 'explicit')
    throw outOfRange('freeze', `without "all-but-head": the ${kind} kind has no head`, 'all-but-head')
  return { settings, conduct: { ...conduct, out: resolve(conduct.out) } }
}

type Settings = ResolvedOptions['settings']

/** The settings that mean something for this kind and optimizer: what a run's config.json holds. */
export function applicableSettings(settings: Settings): Partial<TrainSettings> {
  return Object.fromEntries(
    Object.entries(settings).filter(([name]) => {
      const row: OptionRow = TRAIN_OPTIONS[name as TrainOptionName]
      return applies(row, settings)
    }),
  )
}
