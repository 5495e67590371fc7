/**
 * Which tokens a reward comes from: the tokens of a response, colored by their share of the implicit reward, with the explicit model's head
 * as a step below each. Every value is in the token's own text for a screen reader, shows when it is pointed at or focused, and is in a table.
 */
import { extent } from 'd3-array'
import type { AttributionLine, ExperimentResult } from '../experiments/result.js'
import { type Content, directionOf, html, type Markup, visible } from './html.js'
import { data, signed } from './numbers.js'
import { heading } from './section.js'
import { type Cell, table } from './table.js'

const RESPONSES = 40
const TOKENS = 400
/** Number of color steps on each side of zero. */
const SHADES = 8
/** Number of pairs per set that are open; further pairs are folded away. */
const OPEN_PAIRS = 2

interface Pair {
  set: string
  index: number
  sides: AttributionLine[]
}

/** Undefined if nothing was explained. `level`: heading level of the sets. */
export function attributionBody(lines: readonly AttributionLine[], { sets }: ExperimentResult, level: number): Content {
  if (lines.length === 0) return undefined
  const all = pairsOf(lines)
  const chosen = choose(all)
  const shown = chosen.reduce((sum, { sides }) => sum + sides.length, 0)
  const cut =
    shown < lines.length &&
    html`<p class="cut">${shown} of ${lines.length} responses are shown; all are in <code>attributions.jsonl</code>.</p>`
  const groups = [...new Set(chosen.map(({ set }) => set))].map((name) => {
    const pairs = chosen.filter(({ set }) => set === name).map((pair) => pairBlock(pair, level + 1))
    const more = pairs.slice(OPEN_PAIRS)
    const folded =
      more.length > 0 &&
      html`<details class="more"><summary>${more.length} more ${more.length === 1 ? 'pair' : 'pairs'} of this set</summary>${more}</details>`
    return html`${heading(level, sets.find((set) => set.name === name)?.label ?? name)}${pairs.slice(0, OPEN_PAIRS)}${folded}`
  })
  return html`${legend()}${cut}${groups}`
}

function pairsOf(lines: readonly AttributionLine[]): Pair[] {
  const pairs = new Map<string, Pair>()
  for (const line of lines) {
    const key = JSON.stringify([line.set, line.index])
    const pair = pairs.get(key) ?? { set: line.set, index: line.index, sides: [] }
    pair.sides.push(line)
    pairs.set(key, pair)
  }
  return [...pairs.values()]
}

/** Takes as many responses per set as there is space for, in the order of the file. */
function choose(pairs: readonly Pair[]): Pair[] {
  const nth = new Map<string, number>()
  const ranked = pairs.map((pair) => {
    const rank = nth.get(pair.set) ?? 0
    nth.set(pair.set, rank + 1)
    return { pair, rank }
  })
  const kept = new Set<Pair>()
  let responses = 0
  for (const { pair } of ranked.toSorted((a, b) => a.rank - b.rank)) {
    if (responses + pair.sides.length > RESPONSES) break
    responses += pair.sides.length
    kept.add(pair)
  }
  return pairs.filter((pair) => kept.has(pair))
}

function legend(): Markup {
  const shades = [
    ...Array.from({ length: SHADES }, (_, i) => `n${SHADES - i}`),
    'p0',
    ...Array.from({ length: SHADES }, (_, i) => `p${i + 1}`),
  ]
  return html`<div class="legend"><p><span class="scale" aria-hidden="true">${shades.map((shade) => html`<i class="${shade}"></i>`)}</span>
<strong>Color: share of the implicit reward.</strong> Green with a solid line raises it, purple with a dashed line lowers it, and no color means no effect. The full color is the largest share in that response.</p>
<p><span class="scale" aria-hidden="true">${[0.15, 0.25, 0.2, 0.55, 0.45, 0.9].map((height) => html`<i class="step" style="--h:${height}"></i>`)}</span>
<strong>Step below: the explicit head.</strong> The reward if the response ended at that token. Both responses of a pair use the same scale.</p>
<p class="keys">Point at a token to see its numbers, or focus a response and move with the arrow keys.</p></div>`
}

function pairBlock({ index, sides }: Pair, level: number): Markup {
  const [low, high] = extent(sides.flatMap(({ explicit }) => explicit?.along ?? [])) as
    | [number, number]
    | [undefined, undefined]
  const height = (value: number) => (low === undefined || high === low ? 0.5 : (value - low) / (high - low))
  const { prompt } = sides[0]!
  const ordered = sides.toSorted((a, b) => (a.side < b.side ? -1 : a.side > b.side ? 1 : 0))
  return html`<article class="pair">${heading(level, `Pair ${index + 1}`)}
<p class="prompt" dir="${directionOf(prompt)}"><span class="who">Prompt</span>${prompt}</p>
${verdict(sides)}
<div class="sides">${ordered.map((line) => side(line, height, level + 1))}</div>
<details class="numbers"><summary>Numbers of this pair</summary><div class="sides">${ordered.map(numbers)}</div></details></article>`
}

/** Says for each kind whether it ranks the pair correctly. */
function verdict(sides: readonly AttributionLine[]): Content {
  const chosen = sides.find(({ side: which }) => which === 'chosen')
  const rejected = sides.find(({ side: which }) => which === 'rejected')
  if (chosen === undefined || rejected === undefined) return null
  const kinds = (['implicit', 'explicit'] as const).flatMap((kind) => {
    const [a, b] = [chosen[kind], rejected[kind]]
    if (a === undefined || b === undefined) return []
    const margin = a.reward - b.reward
    const [sign, words] =
      margin > 0
        ? ['✓', 'ranks this pair correctly']
        : margin < 0
          ? ['✗', 'ranks this pair incorrectly']
          : ['=', 'ranks both responses equally']
    return [
      html`<li class="ink-${kind}"><span aria-hidden="true">${sign}</span> <strong>${kind === 'implicit' ? 'Implicit' : 'Explicit'}</strong> ${words} <span class="margin">(margin ${data(margin, signed)})</span></li>`,
    ]
  })
  return kinds.length > 0 && html`<ul class="verdict">${kinds}</ul>`
}

function side(
  { side: which, tokens, implicit, explicit }: AttributionLine,
  height: (value: number) => number,
  level: number,
): Markup {
  const largest = Math.max(...(implicit?.share ?? []).map(Math.abs), 0)
  const rewards = [
    implicit !== undefined && html`<span class="ink-implicit">implicit ${data(implicit.reward, signed)}</span>`,
    explicit !== undefined && html`<span class="ink-explicit">explicit ${data(explicit.reward, signed)}</span>`,
  ]
  const items = tokens.slice(0, TOKENS).map((token, k) => {
    const share = implicit?.share[k]
    const along = explicit?.along[k]
    const shade = share === undefined ? 'p0' : shadeOf(share, largest)
    const said = [share !== undefined && `share ${signed(share)}`, along !== undefined && `head ${signed(along)}`]
      .filter((one) => one !== false)
      .join(', ')
    const step = along !== undefined && html`<i class="step" style="--h:${height(along).toFixed(2)}"></i>`
    return html`<li tabindex="${k === 0 ? 0 : -1}"><bdi class="word ${shade}">${shownToken(token)}</bdi>${step}<span class="tip">${said}</span></li>`
  })
  const cut =
    tokens.length > TOKENS && html`<p class="cut">The first ${TOKENS} of ${tokens.length} tokens are shown.</p>`
  const scale = implicit !== undefined && html`<p class="full">Full color: share of ±${data(largest)}</p>`
  return html`<section class="side">${heading(level, html`${which === 'chosen' ? 'Chosen' : 'Rejected'} <span class="rewards">${rewards}</span>`)}
<div class="box"><ul class="tokens" dir="${directionOf(tokens.join(''))}" aria-label="Tokens of the ${which} response">${items}</ul>${scale}</div>${cut}</section>`
}

function shadeOf(share: number, largest: number): string {
  const shade = largest === 0 ? 0 : Math.round((Math.abs(share) / largest) * SHADES)
  return shade === 0 ? 'p0' : `${share < 0 ? 'n' : 'p'}${shade}`
}

/** Shows line feeds, tabs and tokens of blanks with visible signs. */
function shownToken(token: string): string {
  const shown = visible(token).replaceAll('\n', '↵').replaceAll('\t', '⇥')
  return shown.trim() === '' ? shown.replaceAll(' ', '␣') || '∅' : shown
}

function numbers({ side: which, tokens, implicit, explicit }: AttributionLine): Markup {
  const columns = [
    { name: 'Token' },
    ...(implicit === undefined ? [] : [{ name: 'Share of implicit', numeric: true }]),
    ...(explicit === undefined ? [] : [{ name: 'Explicit head', numeric: true }]),
  ]
  const rows = tokens
    .slice(0, TOKENS)
    .map((token, k): Cell[] => [
      html`<bdi class="token">${shownToken(token)}</bdi>`,
      ...(implicit === undefined ? [] : [data(implicit.share[k], signed)]),
      ...(explicit === undefined ? [] : [data(explicit.along[k], signed)]),
    ])
  return table(`${which === 'chosen' ? 'Chosen' : 'Rejected'} response, token by token`, columns, rows)
}
