/**
 * How rewards are distributed: those of chosen responses upward, those of rejected ones downward, for each shift and kind. Explicit rewards
 * have no natural zero or unit, so each training's rewards of a set are shown as distances from their mean, in their standard deviation.
 */
import { bin, deviation, max, mean } from 'd3-array'
import { scaleLinear } from 'd3-scale'
import type { ExperimentResult } from '../../experiments/result.js'
import { type Content, html } from '../html.js'
import type { Training } from '../load.js'
import { fixed } from '../numbers.js'
import { lookOf } from '../palette.js'
import { type Drawing, type Figure, type Form, line, type Panel, px, text, WIDTHS, xAxis } from '../svg.js'

/** Standard deviations at the ends of the axis. The last bar counts everything beyond. */
const END = 3
const BARS = 30

export interface RewardPanel {
  shift: string
  kind: string
  /** Standardized rewards. */
  chosen: number[]
  rejected: number[]
}

export interface Rewards {
  figure: Figure
  panels: RewardPanel[]
}

/** Undefined if no rewards were kept. */
export function rewardsFigure(
  result: ExperimentResult,
  trainings: readonly Training[],
  id: string,
): Rewards | undefined {
  const list = panelsOf(result, trainings)
  if (list.length === 0) return undefined
  const said = list.map(
    ({ shift, kind, chosen, rejected }) =>
      `${shift}, ${kind}: chosen ${fixed(mean(chosen), 2)}, rejected ${fixed(mean(rejected), 2)}.`,
  )
  const figure: Figure = {
    id,
    title: 'Rewards of chosen and rejected responses',
    description: `Distributions in standard deviations from the mean. Means: ${said.join(' ')}`,
    draw: (form) => draw(list, form),
  }
  return { figure, panels: list }
}

function panelsOf({ shifts, sets }: ExperimentResult, trainings: readonly Training[]): RewardPanel[] {
  const kinds = [...new Set(trainings.map(({ kind }) => kind))]
  const list: RewardPanel[] = []
  for (const { name, label } of shifts) {
    for (const kind of kinds) {
      const panel: RewardPanel = { shift: label, kind, chosen: [], rejected: [] }
      for (const training of trainings.filter((one) => one.kind === kind)) {
        for (const set of sets.filter(({ shift }) => shift === name)) {
          for (const [chosen, rejected] of standardized(training.rewards.get(set.name) ?? [])) {
            panel.chosen.push(chosen)
            panel.rejected.push(rejected)
          }
        }
      }
      if (panel.chosen.length > 0) list.push(panel)
    }
  }
  return list
}

/** All zero where all rewards are the same. */
function standardized(pairs: readonly [number, number][]): [number, number][] {
  const all = pairs.flat()
  const middle = mean(all) ?? 0
  const spread = deviation(all) || 1
  return pairs.map(([chosen, rejected]) => [(chosen - middle) / spread, (rejected - middle) / spread])
}

function draw(list: readonly RewardPanel[], form: Form): Drawing {
  const kinds = new Set(list.map(({ kind }) => kind)).size
  const columns = form === 'wide' ? kinds : 1
  const width = WIDTHS[form] / columns
  const content: Content[] = []
  let y = 0
  for (const shift of new Set(list.map((panel) => panel.shift))) {
    content.push(text(0, y + 18, shift, { look: 'bold', room: WIDTHS[form] }))
    const row = list.filter((panel) => panel.shift === shift)
    for (const [i, panel] of row.entries()) {
      const at = { x: (i % columns) * width + 10, y: y + 56, width: width - 26, height: 92 }
      content.push(drawPanel(panel, at))
      if (i % columns === columns - 1 || i === row.length - 1) y += 138
    }
    y += 34
  }
  return {
    height: y + 20,
    content: [content, text(0, y + 10, 'Rewards: standard deviations from the mean of the set', { look: 'muted' })],
  }
}

function drawPanel({ kind, chosen, rejected }: RewardPanel, at: Panel): Content {
  const look = lookOf(kind)
  const x = scaleLinear()
    .domain([-END, END])
    .range([at.x, at.x + at.width])
  const edges = Array.from({ length: BARS - 1 }, (_, i) => -END + ((i + 1) * 2 * END) / BARS)
  const bins = bin().domain([-END, END]).thresholds(edges)
  const inside = (values: readonly number[]) => bins(values.map((value) => Math.min(Math.max(value, -END), END - 1e-9)))
  const [up, down] = [inside(chosen), inside(rejected)]
  const most = max([...up, ...down], (one) => one.length)!
  const middle = at.y + at.height / 2
  const height = scaleLinear()
    .domain([0, most])
    .range([0, at.height / 2 - 2])
  const bars = (of: typeof up, side: 1 | -1, name: string) =>
    of
      .filter((one) => one.length > 0)
      .map((one) => {
        const size = height(one.length)
        const left = x(one.x0!)
        return html`<rect x="${px(left + 0.5)}" y="${px(side > 0 ? middle - size : middle)}" width="${px(x(one.x1!) - left - 1)}" height="${px(size)}" class="${name}-${look.color}"/>`
      })
  return [
    text(at.x - 10, at.y - 14, look.label, { look: `ink-${look.color} bold` }),
    xAxis(x, at, 6),
    bars(up, 1, 'fill'),
    bars(down, -1, 'outline'),
    line(at.x, middle, at.x + at.width, middle, 'stroke-ink'),
    text(at.x + at.width, at.y + 8, 'chosen ↑', { anchor: 'end', look: 'muted small' }),
    text(at.x + at.width, at.y + at.height - 4, 'rejected ↓', { anchor: 'end', look: 'muted small' }),
  ]
}
