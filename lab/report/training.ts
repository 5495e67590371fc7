/**
 * One `implex train` run as sections of the page: its curves and its results.
 */
import { join } from 'node:path'
import { shellWord } from '../../lib/train/runs/shell-word.js'
import { curveSection } from './curve-section.js'
import { html } from './html.js'
import type { TrainingRun } from './load.js'
import { data, digits, duration, fixed, grouped } from './numbers.js'
import { lookOf } from './palette.js'
import { facts, type RunReport, type Section } from './section.js'
import { figureTable, table } from './table.js'

/** The statistics of an evaluation, in the order of the table. */
const COLUMNS = [
  ['accuracy', 'Accuracy'],
  ['loss', 'Loss'],
  ['meanMargin', 'Mean margin'],
  ['normalizedMargin', 'Normalized margin'],
  ['brier', 'Brier score'],
  ['ece', 'Calibration error'],
  ['pairs', 'Pairs'],
] as const

export function trainingReport({ path, name, config, summary, trainings }: TrainingRun, prefix: string): RunReport {
  const label = lookOf(summary.kind).label
  const sections: Section[] = []
  const { run, ...options } = config
  const date = (run as { now?: unknown } | undefined)?.now
  const body = [
    facts([
      ['Model', summary.model],
      ['Kind', label.toLowerCase()],
      [
        'Steps',
        html`${data(summary.steps, grouped)} <span class="aside">${grouped(summary.epochs)} epochs of ${grouped(summary.pairs)} pairs</span>`,
      ],
      ['Device', html`${summary.device}, ${summary.dtype} <span class="aside">kernels ${summary.kernels}</span>`],
      [
        'Time',
        html`${duration(summary.seconds)} <span class="aside">${digits(summary.tokensPerSecond)} tokens/s</span>`,
      ],
      ...(typeof date === 'string'
        ? [['Date', html`<time datetime="${date}">${date.slice(0, 10)}</time>`] as const]
        : []),
      ['Version', `implex ${summary.version}`],
    ]),
    figureTable(
      'Settings',
      table(
        'Settings',
        [{ name: 'Setting' }, { name: 'Value' }],
        Object.entries(options).map(([key, value]) => [
          key,
          typeof value === 'object' ? JSON.stringify(value) : String(value),
        ]),
      ),
    ),
  ]
  sections.push({ id: `${prefix}run`, title: 'What was run', body })
  const curves = curveSection(trainings, (set) => set, `${prefix}curves`)
  if (curves !== undefined)
    sections.push({ id: `${prefix}curves-section`, title: 'Training curves', body: curves.body })
  const sets = Object.entries(summary.evaluation)
  if (sets.length > 0) {
    const known = COLUMNS.filter(([key]) => sets.some(([, set]) => typeof set[key] === 'number'))
    const final = table(
      'After the last step',
      [{ name: 'Set' }, ...known.map(([, column]) => ({ name: column, numeric: true }))],
      sets.map(([set, values]) => [
        set,
        ...known.map(([key]) => data(values[key] as number | null, key === 'pairs' ? grouped : fixed)),
      ]),
    )
    sections.push({ id: `${prefix}final`, title: 'Final metrics', body: final })
  }
  const command = `implex train --config ${shellWord(join(path, 'config.json'))} --out FOLDER`
  sections.push({
    id: `${prefix}reproduce`,
    title: 'How to reproduce',
    body: html`<pre class="scroll" tabindex="0"><code>${command}</code></pre>`,
  })

  const accuracies = sets.flatMap(([set, { accuracy }]) =>
    typeof accuracy === 'number' ? [`${fixed(accuracy)} on ${set}`] : [],
  )
  const outcome =
    accuracies.length > 0
      ? `Accuracy after training: ${accuracies.join(', ')}.`
      : `${grouped(summary.steps)} steps. No set was evaluated.`
  const header = html`<p class="headline"><span class="who">Outcome</span>${outcome}</p>`
  return {
    title: `${label} reward model: ${name}`,
    eyebrow: 'Training',
    header,
    sections,
    figures: curves === undefined ? [] : [curves.figure],
  }
}
