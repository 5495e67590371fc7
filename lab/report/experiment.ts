/**
 * An experiment as sections of the page: first the answer, then the evidence for it.
 */
import { group, mean } from 'd3-array'
import type { Comparison, ExperimentResult, ResultTable } from '../experiments/result.js'
import type { Json } from '../../lib/core/same-run.js'
import { shellWord } from '../../lib/train/runs/shell-word.js'
import { attributionBody } from './attribution.js'
import { curveSection } from './curve-section.js'
import { accuracyFigure } from './figures/accuracy.js'
import { errorFigure } from './figures/errors.js'
import { groupsOf } from './figures/intervals.js'
import { marginFigure } from './figures/margins.js'
import { predictedFigure } from './figures/predicted.js'
import { rewardsFigure } from './figures/rewards.js'
import { type Content, html, type Markup } from './html.js'
import type { ExperimentRun } from './load.js'
import { data, digits, duration, fixed, grouped, magnitude, signed } from './numbers.js'
import { lookOf } from './palette.js'
import { facts, figureBlock, heading, type RunReport, type Section } from './section.js'
import type { Figure } from './svg.js'
import { type Column, figureTable, table } from './table.js'

/** `prefix` makes ids unique on a page with several runs. `level` is the heading level of the sections. */
export function experimentReport(run: ExperimentRun, prefix: string, level: number): RunReport {
  const { result } = run
  const figures: Figure[] = []
  const sections: Section[] = []
  const add = (id: string, title: string, body: Content) => {
    if (body !== undefined && body !== null && body !== false) sections.push({ id: `${prefix}${id}`, title, body })
  }
  const labelOf = (name: string) => result.sets.find((set) => set.name === name)?.label ?? name

  add('run', 'What was run', whatWasRun(run, level + 1))
  const accuracy = accuracyFigure(result, `${prefix}accuracy`)
  if (accuracy !== undefined) {
    figures.push(accuracy)
    add('accuracy-section', 'Accuracy by shift and kind', accuracyBody(result, accuracy))
  }
  const margins = marginFigure(result, `${prefix}margins`)
  if (margins !== undefined) {
    figures.push(margins)
    add('margins-section', 'Normalized margins', marginsBody(result, margins))
  }
  const curves = curveSection(run.trainings, labelOf, `${prefix}curves`)
  if (curves !== undefined) {
    figures.push(curves.figure)
    add('curves-section', 'Training curves', curves.body)
  }
  const rewards = rewardsFigure(result, run.trainings, `${prefix}rewards`)
  if (rewards !== undefined) {
    figures.push(rewards.figure)
    add('rewards-section', 'Reward distributions', rewardsBody(result, rewards.figure))
  }
  if (result.tables.length > 0)
    add(
      'tables',
      result.experiment === 'theory' ? 'Predicted and measured' : 'Further measurements',
      tablesBody(result.tables, prefix, figures, level + 1),
    )
  if (result.paper.length > 0) add('paper', 'Beside the paper', paperBody(result))
  add('tokens', 'Rewards token by token', attributionBody(run.attributions, result, level + 1))
  if (result.notes.length > 0)
    add(
      'notes',
      'Before quoting a number',
      html`<ul class="notes">${result.notes.map((note) => html`<li>${note}</li>`)}</ul>`,
    )
  add('reproduce', 'How to reproduce', reproduceBody(run))

  const header = html`<p class="question"><span class="who">Question</span>${result.question}</p>
<p class="headline"><span class="who">Answer</span>${result.headline}</p>`
  return { title: result.title, eyebrow: `Experiment: ${result.experiment}`, header, sections, figures }
}

function whatWasRun({ result, trainings }: ExperimentRun, level: number): Content {
  const { model, sets, shifts, members, settings } = result
  const kinds = [...new Set(members.map(({ kind }) => lookOf(kind).label.toLowerCase()))]
  const seeds = [...new Set(trainings.map(({ seed }) => seed))]
  const trained = html`<span class="aside">${members.length} training runs, ${seeds.length === 1 ? 'seed' : 'seeds'} ${seeds.join(', ')}</span>`
  const labels = new Map(shifts.map(({ name, label }) => [name, label]))
  return [
    facts([
      ['Model', html`${model.name} <span class="aside">${magnitude(model.parameters)} parameters</span>`],
      ...(kinds.length > 0 ? [['Reward models', html`${kinds.join(', ')} ${trained}`] as const] : []),
      [
        'Device',
        html`${result.device}, ${result.dtype} <span class="aside">kernels ${result.kernels}, ${result.threads} ${result.threads === 1 ? 'thread' : 'threads'}</span>`,
      ],
      [
        'Date',
        html`<time datetime="${result.date}">${result.date.slice(0, 10)}</time> <span class="aside">took ${duration(result.seconds)}</span>`,
      ],
      ['Version', `implex ${result.version}`],
    ]),
    shifts.length > 0 &&
      html`${heading(level, 'The shifts')}<dl class="shifts">${shifts.map(({ label, description }) => html`<div><dt>${label}</dt><dd>${description}</dd></div>`)}</dl>`,
    (sets.length > 0 || Object.keys(settings).length > 0) &&
      figureTable('Data sets and settings', [
        sets.length > 0 &&
          table(
            'Data sets',
            [{ name: 'Set' }, { name: 'Shift' }, { name: 'Pairs', numeric: true }],
            sets.map(({ label, shift, pairs }) => [label, labels.get(shift) ?? shift, data(pairs, grouped)]),
          ),
        table(
          'Settings',
          [{ name: 'Setting' }, { name: 'Value' }],
          Object.entries(settings).map(([name, value]) => [name, shownSetting(value)]),
        ),
      ]),
  ]
}

function shownSetting(value: Json): string {
  if (Array.isArray(value)) return value.map(shownSetting).join(', ')
  return typeof value === 'object' && value !== null ? JSON.stringify(value) : String(value)
}

/** Shift, kind, mean, interval, and each seed, of one statistic. */
function comparisonTable(caption: string, result: ExperimentResult, statistic: Comparison['statistic']): Markup {
  const rows = groupsOf(result, statistic).flatMap(({ label, rows: of }) => of.map((row) => ({ label, row })))
  const seeds = Math.max(...rows.map(({ row }) => row.seeds.length), 0)
  const columns: Column[] = [
    { name: 'Shift' },
    { name: 'Kind' },
    { name: 'Mean', numeric: true },
    { name: '95% interval', numeric: true },
    ...Array.from({ length: seeds }, (_, i) => ({ name: seedName(result, i), numeric: true })),
  ]
  return table(
    caption,
    columns,
    rows.map(({ label, row }) => [
      label,
      html`<span class="ink-${lookOf(row.kind).color}">${lookOf(row.kind).label}</span>`,
      html`<strong>${data(row.mean, fixed)}</strong>`,
      row.low === null || row.high === null ? null : html`${data(row.low, fixed)} to ${data(row.high, fixed)}`,
      ...row.seeds.map((value) => data(value, fixed)),
    ]),
  )
}

/** The name of the i-th seed. All kinds usually have the same seeds. */
function seedName({ members }: ExperimentResult, i: number): string {
  const at = new Set([...group(members, ({ kind }) => kind).values()].map((of) => of[i]?.seed))
  const [seed] = at
  return at.size === 1 && seed !== undefined ? `Seed ${seed}` : `Training ${i + 1}`
}

const INTERVALS =
  'The bar is the 95% interval (from resampled seeds and pairs), the filled mark is the mean over seeds, and each hollow mark is one seed.'

function accuracyBody(result: ExperimentResult, figure: Figure): Content {
  const caption = html`A pair counts if its chosen response gets the higher reward; a tie counts half. Guessing gives 0.5. ${INTERVALS}`
  return figureBlock(figure, caption, comparisonTable('Accuracy, in numbers', result, 'accuracy'))
}

function marginsBody(result: ExperimentResult, figure: Figure): Content {
  const caption = html`The distance between the two rewards of a pair, whichever is higher, in standard deviations of all rewards of the set. A larger margin is a clearer signal, right or wrong. ${INTERVALS}`
  const others = (['meanMargin', 'brier', 'ece'] as const).filter((name) => groupsOf(result, name).length > 0)
  const names = { meanMargin: 'Mean margin r⁺ − r⁻', brier: 'Brier score', ece: 'Expected calibration error' }
  return [
    figureBlock(
      figure,
      caption,
      figureTable(
        'Numbers of this figure',
        comparisonTable('Normalized margin, in numbers', result, 'normalizedMargin'),
      ),
    ),
    others.length > 0 &&
      figureTable(
        'Calibration and raw margins',
        others.map((name) => comparisonTable(names[name], result, name)),
      ),
  ]
}

function rewardsBody(result: ExperimentResult, figure: Figure): Content {
  const caption =
    'Upward bars count chosen responses, downward bars rejected ones, over all seeds and sets of a shift. Only differences of rewards have a meaning, so the rewards of each training run on a set are shown as distances from their mean in standard deviations. The last bar includes everything beyond 3.'
  const rows = result.shifts.flatMap((shift) => {
    const sets = result.sets.filter((set) => set.shift === shift.name).map(({ name }) => name)
    return [...group(result.members, ({ kind }) => kind)].map(([kind, of]) => {
      const over = (name: 'meanChosen' | 'meanRejected') => {
        const values = of.flatMap(({ evaluation }) => sets.map((set) => evaluation[set]?.[name]))
        return mean(values.filter((value) => typeof value === 'number'))
      }
      return [shift.label, lookOf(kind).label, data(over('meanChosen'), signed), data(over('meanRejected'), signed)]
    })
  })
  const columns = [
    { name: 'Shift' },
    { name: 'Kind' },
    { name: 'Chosen', numeric: true },
    { name: 'Rejected', numeric: true },
  ]
  return figureBlock(
    figure,
    caption,
    figureTable('Numbers of this figure', table('Mean raw rewards over seeds and sets', columns, rows)),
  )
}

function tablesBody(tables: readonly ResultTable[], prefix: string, figures: Figure[], level: number): Content {
  return tables.map((one, i) => {
    const shown = one.columns.map((_, k) => numberFormat(one.rows.map((row) => row[k])))
    const columns = one.columns.map((name, k) => ({ name, numeric: shown[k] !== undefined }))
    const cells = one.rows.map((row) =>
      row.map((cell, k) => (typeof cell === 'number' ? data(cell, shown[k] ?? digits) : cell)),
    )
    const drawn = [
      [
        predictedFigure(one, `${prefix}predicted-${i + 1}`),
        'Each mark is a row of the table below. On the dashed diagonal, prediction and measurement agree.',
      ],
      [
        errorFigure(one, `${prefix}errors-${i + 1}`),
        'The distance of each measurement from its prediction, and the bound for that distance. An error of zero is at the left end.',
      ],
    ] as const
    const blocks = drawn.map(([figure, caption]) => {
      if (figure === undefined) return null
      figures.push(figure)
      return figureBlock(figure, caption, null)
    })
    return html`${heading(level, one.title)}<p>${one.note}</p>${blocks}${table(one.title, columns, cells)}`
  })
}

/** How a column of numbers is written, so that its places stand below each other; undefined for any other column. */
function numberFormat(cells: readonly unknown[]): ((value: number) => string) | undefined {
  const values = cells.filter((cell) => cell !== null)
  if (values.length === 0 || !values.every((value) => typeof value === 'number')) return undefined
  const sizes = values.filter((value) => value !== 0).map(Math.abs)
  const alike = !values.every(Number.isInteger) && sizes.every((size) => size >= 0.001 && size < 1000)
  return alike ? (value) => fixed(value) : (value) => digits(value)
}

function paperBody({ paper }: ExperimentResult): Content {
  return [
    html`<p>The numbers of arXiv 2507.07981, for its own models and data, beside the numbers of this run. Compare the pattern, not the digits.</p>`,
    table(
      'The paper’s numbers and ours',
      [
        { name: 'What' },
        { name: 'Kind' },
        { name: 'Paper', numeric: true },
        { name: 'Here', numeric: true },
        { name: 'Difference', numeric: true },
      ],
      paper.map(({ what, kind, paper: theirs, ours }) => [
        what,
        html`<span class="ink-${lookOf(kind).color}">${lookOf(kind).label}</span>`,
        data(theirs, fixed),
        data(ours, fixed),
        ours === null ? null : data(ours - theirs, (value) => (value > 0 ? `+${fixed(value)}` : fixed(value))),
      ]),
    ),
  ]
}

/** All options with their final values, as flags. The page alone is enough to repeat the run. */
function reproduceBody({ result, config }: ExperimentRun): Content {
  const { experiment, settings, model } = result
  const {
    run: _,
    experiment: __,
    out: ___,
    model: ____,
    ...options
  } = Object.keys(config).length > 0 ? config : settings
  const words = [`implex experiment ${experiment}`, `--model ${shellWord(model.path)}`]
  for (const [name, value] of Object.entries(options as Record<string, Json>)) {
    const flag = `--${name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`
    const given = flagValue(value)
    if (value === true) words.push(flag)
    else if (given !== undefined) words.push(`${flag} ${given}`)
  }
  return [
    html`<pre class="scroll" tabindex="0"><code>${[...words, '--out FOLDER'].join(' \\\n  ')}</code></pre>`,
    html`<p>With the same version, kernels and device (implex ${result.version}, ${result.kernels}, ${result.device}) this command gives the same bits again.</p>`,
  ]
}

/** Writes lists with commas and objects as NAME=VALUE words. */
function flagValue(value: Json): string | undefined {
  if (typeof value === 'string' || typeof value === 'number') return shellWord(String(value))
  if (Array.isArray(value)) return value.length > 0 ? shellWord(value.join(',')) : undefined
  if (typeof value !== 'object' || value === null) return undefined
  const words = Object.entries(value).map(([name, one]) =>
    shellWord(`${name}=${Array.isArray(one) ? one.join(',') : String(one)}`),
  )
  return words.length > 0 ? words.join(' ') : undefined
}
