/** The table of training options: each row reaches the interface, the command's help, an options file, the checks and the documents. */
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { TRAIN_FILE_OPTIONS, trainFlag } from '../cli/options.js'
import {
  applies,
  engineOptions,
  type OptionRow,
  TRAIN_OPTION_ROWS,
  TRAIN_OPTIONS,
  type TrainOptionName,
  whose,
} from '../lib/train/option-table.js'
import { OPTIMIZERS, RECIPE_NAMES, TRAIN_KINDS, type TrainOptions } from '../lib/train/options.js'
import { RECIPES } from '../lib/train/recipes.js'
import { applicableSettings, resolveTrainOptions } from '../lib/train/resolve-options.js'
import { membersOf } from './support/api-doc.js'
import { implexHere } from './support/cli.js'
import { readDoc } from './support/doc-blocks.js'
import { declarationOf } from './support/public-api.js'
import { repositoryRoot } from './support/shared.js'

const FILE = join(repositoryRoot, 'dist', 'lib', 'train', 'options.d.ts')
const fieldsOf = (name: string) =>
  new Map(membersOf(declarationOf({ file: FILE, name }, true)).map((one) => [one.name, one]))
const settings = fieldsOf('TrainSettings')
const conduct = fieldsOf('TrainConduct')
const folded = (text: string) => text.replaceAll(/\s+/g, ' ')
const help = folded((await implexHere(['train', '--help'])).stdout)
const cli = folded(readDoc('docs/cli.md'))
const api = ['TrainSettings', 'TrainConduct']
  .map((name) => readDoc('docs/api.md').split(`### ${name}\n`)[1]!.split('### ')[0]!)
  .join('')
const BASE: TrainOptions = { kind: 'explicit', out: 'run' }

/** As a doc comment writes a default. */
function quoted(value: unknown): string {
  if (typeof value === 'string') return `'${value}'`
  return typeof value === 'number' && value !== 0 && value < 1e-3 ? value.toExponential() : String(value)
}
/** A value of another type than the option's, and for options with bounds one outside of them. */
const WRONG: Partial<Record<OptionRow['value']['shape']['is'], unknown[]>> = {
  boolean: ['yes'],
  text: [1],
  folder: ['', 1],
  sets: [[], { 'no/name': 'x' }],
  head: [[1]],
  date: ['today'],
  signal: [{}],
  function: ['f'],
  steps: [-1, 1.5, '1'],
  integer: [0.5, '1', -1],
  number: [Number.NaN, Number.POSITIVE_INFINITY, '1', -1],
  one: ['no-such-choice', 1],
  some: ['embedding', ['no-such-choice']],
  names: ['q_proj', [], [''], [1]],
}

const table = suite('training options')

for (const [name, row] of TRAIN_OPTION_ROWS) {
  table(name, () => {
    const member = (row.decides ? settings : conduct).get(name)
    assert.ok(member, 'the interface has it')
    assert.not.ok((row.decides ? conduct : settings).has(name), 'one interface has it')
    if (name !== 'kind' && name !== 'out') assert.ok(member.doc.length > 5, 'the interface has a sentence about it')
    if (row.default !== undefined)
      assert.ok(folded(member.doc).includes(`Defaults to ${quoted(row.default)}`), member.doc)
    if (row.kinds !== undefined) assert.ok(member.doc.startsWith(`${row.kinds.join(', ')}: `), member.doc)
    if (row.optimizers !== undefined) assert.ok(member.doc.startsWith(`${row.optimizers.join(', ')}: `), member.doc)
    const line = api
      .split('\n')
      .find((one) => one.startsWith(`| \`${name}`) && one.includes(member.doc.replaceAll('|', '\\|')))
    assert.ok(line, 'docs/api.md has it')

    const { flag } = row
    if (flag !== undefined) {
      const option = trainFlag(name)
      for (const [place, text] of Object.entries({ help, cli })) {
        assert.ok(text.includes(` ${option.flags} ${option.description} `), `${place}: ${option.flags}`)
      }
      assert.ok(line.includes(`\`${option.long}\``), line)
      assert.is(option.attributeName(), name)
      assert.is(TRAIN_FILE_OPTIONS.includes(name), row.once !== true)
      if (row.default !== undefined && typeof row.default !== 'boolean' && row.shown === undefined)
        assert.match(option.description, /default: \S+/)
    }

    const given = {
      ...BASE,
      ...(row.kinds && { kind: row.kinds[0]! }),
      ...(row.optimizers && { optimizer: row.optimizers[0]! }),
    }
    for (const value of WRONG[row.value.shape.is]!) {
      assert.throws(
        () => resolveTrainOptions({ ...given, [name]: value } as never),
        (error: Error) => error.message.includes(`"${name}"`) || error.message.includes('name of a data set'),
        `${name}: ${String(value)}`,
      )
    }
  })
}

table('the interfaces have nothing beside the rows', () => {
  const rows = TRAIN_OPTION_ROWS.map(([name]) => name as string)
  assert.equal([...settings.keys(), ...conduct.keys()].sort(), rows.sort())
})

table('a run has the settings of its kind and optimizer, with their defaults; others are refused', () => {
  for (const kind of TRAIN_KINDS) {
    for (const optimizer of OPTIMIZERS) {
      const found = applicableSettings(resolveTrainOptions({ ...BASE, kind, optimizer }).settings)
      for (const [name, row] of TRAIN_OPTION_ROWS) {
        // Some defaults depend on the device or the checkpoint.
        if (!row.decides || ['microBatchTokens', 'border', 'headAt'].includes(name)) continue
        const has = applies(row, { kind, optimizer })
        assert.is(name in found, has, `${kind}, ${optimizer}, ${name}`)
        const value = found[name as keyof typeof found]
        if (has && name !== 'kind' && name !== 'optimizer') assert.equal(value, row.default ?? row.make?.(), name)
        if (has || row.default === undefined) continue
        assert.throws(
          () => resolveTrainOptions({ ...BASE, kind, optimizer, [name]: row.default }),
          new RegExp(`"${name}" must be left out: it is for ${whose(row)} only`),
        )
      }
    }
  }
})

table('a recipe: its defaults, then the options that are given; for its kind alone', () => {
  const kinds = { 'trl-reward': 'explicit', 'trl-dpo': 'implicit' } as const
  for (const recipe of RECIPE_NAMES) {
    const { kind, defaults } = RECIPES[recipe]
    assert.is(kind, recipe === 'paper' ? undefined : kinds[recipe])
    for (const one of kind === undefined ? TRAIN_KINDS : [kind]) {
      const paper = resolveTrainOptions({ ...BASE, kind: one }).settings
      assert.equal(resolveTrainOptions({ ...BASE, kind: one, recipe }).settings, { ...paper, ...defaults, recipe })
      const given = { learningRate: 0.5, maxLength: 7, seed: 1, onLong: 'error' } as const
      const all = { ...paper, ...defaults, recipe, ...given }
      assert.equal(resolveTrainOptions({ ...BASE, kind: one, recipe, ...given }).settings, all)
    }
    for (const other of kind === undefined ? [] : TRAIN_KINDS.filter((one) => one !== kind)) {
      assert.throws(
        () => resolveTrainOptions({ ...BASE, kind: other, recipe }),
        /"recipe" must be one for the \w+ kind/,
      )
    }
  }
})

table('the end of a sequence is not cut where a reward is read there', () => {
  for (const kind of TRAIN_KINDS) {
    const resolve = () => resolveTrainOptions({ ...BASE, kind, onLong: 'truncate-end' })
    if (kind === 'implicit' || kind === 'sft') assert.is(resolve().settings.onLong, 'truncate-end')
    else assert.throws(resolve, /"onLong" must be another choice/)
  }
})

table('docs/trl.md names the options of each recipe', () => {
  const doc = readDoc('docs/trl.md').split('## What the recipes set')[1]!.split('\n\n')[1]!
  const [header, , ...lines] = doc
    .trim()
    .split('\n')
    .map((line) =>
      line
        .split('|')
        .map((cell) => cell.trim())
        .slice(1, -1),
    )
  assert.equal(
    header!.slice(1),
    ['trl-reward', 'trl-dpo', 'paper'].map((name) => `\`${name}\``),
  )
  const named = new Set(Object.values(RECIPES).flatMap(({ defaults }) => Object.keys(defaults)))
  assert.equal(
    lines.map(([flag]) => flag),
    TRAIN_OPTION_ROWS.filter(([name]) => named.has(name)).map(([name]) => `\`${trainFlag(name).long}\``),
  )
  for (const [flag, ...cells] of lines) {
    const [name] = TRAIN_OPTION_ROWS.find(([one]) => named.has(one) && `\`${trainFlag(one).long}\`` === flag)!
    for (const [i, recipe] of (['trl-reward', 'trl-dpo', 'paper'] as const).entries()) {
      const kind = RECIPES[recipe].kind ?? 'implicit'
      const value = resolveTrainOptions({ ...BASE, kind, recipe }).settings[name as 'seed']
      const shown = applies(TRAIN_OPTIONS[name] as OptionRow, { kind, optimizer: 'adamw' })
        ? quoted(value).replaceAll("'", '')
        : 'none'
      assert.is(cells[i]!.split(',')[0], shown, `${flag} of ${recipe}`)
    }
  }
})

table('what the engine takes as it is', () => {
  const { settings: resolved, conduct: how } = resolveTrainOptions({ ...BASE, centering: 0.5, recompute: true })
  const names = (part: string) => TRAIN_OPTION_ROWS.filter(([, { engine }]) => engine === part).map(([name]) => name)
  const all = { ...resolved, ...how }
  for (const part of ['training', 'optimizer'] as const) {
    const values = names(part).map((name) => [name, all[name as keyof typeof all]])
    assert.ok(values.length > 2)
    assert.equal(engineOptions(part, all), Object.fromEntries(values))
  }
})

table('the order of what config.json holds is that of runs before', () => {
  const { settings: found } = resolveTrainOptions({ ...BASE, microBatchTokens: 64 })
  assert.equal(Object.keys(found).slice(-3), [
    'onLong',
    'evaluateEpochs',
    'microBatchTokens',
  ] satisfies TrainOptionName[])
})

table.run()
