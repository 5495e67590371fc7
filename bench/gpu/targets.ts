/** The promises of a GPU run and whether they were kept, from the cases of its result. */
import { type BenchCase, failed } from '../suites/result.js'
import { median } from '../suites/statistics.js'
import { mebibytes, percent, short } from '../suites/table.js'
import { CEILING, COPY, headName } from './heads.js'

export interface Target {
  what: string
  /** The value as text; '-' if it was not measured. */
  value: string
  promised: string
  aim: string
  /** Undefined if it was not measured. */
  kept?: boolean
}

/** Floating-point operations of a token in the body: two for each weight of a layer's matrices, and the scores of half the sequence. */
export interface BodyShape {
  matrices: number
  layers: number
  attentionWidth: number
}

export const flopsPerToken = ({ matrices, layers, attentionWidth }: BodyShape, length: number): number =>
  2 * matrices + 2 * length * attentionWidth * layers

const NOT_MEASURED = '-'

export interface TargetInput {
  cases: readonly BenchCase[]
  /** The first model's name and shape, and the length of its uniform sequences. */
  model: string
  body: BodyShape
  length: number
}

export function targets({ cases, model, body, length }: TargetInput): Target[] {
  const find = (name: string) => cases.find((item) => item.name === name && !failed(item))
  const seconds = (name: string) => {
    const found = find(name)
    return found === undefined ? undefined : median(found.samples)
  }
  const copy = find(COPY)
  const bandwidth = copy === undefined ? undefined : copy.work.bytes! / median(copy.samples)
  const product = find(CEILING)
  const peak = product === undefined ? undefined : product.work.flops! / median(product.samples)
  const list: Target[] = []
  type Text = (x: number) => string
  const target =
    (sign: '<=' | '>=', kept: (value: number, promised: number) => boolean) =>
    (what: string, value: number | undefined, promised: number, aim: number, text: Text = (x) => `${short(x)} x`) =>
      list.push({
        what,
        value: value === undefined ? NOT_MEASURED : text(value),
        promised: `${sign} ${text(promised)}`,
        aim: `${sign} ${text(aim)}`,
        ...(value === undefined ? {} : { kept: kept(value, promised) }),
      })
  const atMost = target('<=', (value, promised) => value <= promised)
  const atLeast = target('>=', (value, promised) => value >= promised)
  const ratio = (a: number | undefined, b: number | undefined) =>
    a === undefined || b === undefined ? undefined : a / b

  for (const item of cases) {
    const shape = /^logprob (\d+)x(\d+)x(\d+)$/.exec(item.name)
    if (shape === null) continue
    const [rows, vocabulary, depth] = shape.slice(1).map(Number) as [number, number, number]
    const head = { rows, vocabulary, depth }
    const forward = seconds(headName('linear_logprob', head))
    const at = `${rows}x${vocabulary}x${depth}`
    if (rows >= 4096) {
      atMost(`logprob ${at} / product`, ratio(forward, seconds(headName('gemm', head))), 1.25, 1)
      const both = seconds(headName('linear_logprob_both', head))
      atMost(`fwd+bwd ${at} / products`, ratio(both, seconds(headName('head_products', head))), 1.35, 1.1)
    }
    if (rows <= 128) {
      const read = bandwidth === undefined ? undefined : (2 * vocabulary * depth) / bandwidth
      atMost(`logprob ${at} / weights' read`, ratio(forward, read), 1.5, 1.2)
    }
    // Worst case: every token off in the same direction. A random token's ln p is about ln V.
    const nat = item.check === undefined ? undefined : item.check.error * Math.log(vocabulary) * 512
    const digits = (x: number) => x.toExponential(1)
    atMost(`logprob ${at}, nat/512 tok`, nat, 2e-3, 2e-3, digits)
    const gradient = cases.find(({ name }) => name === headName('linear_logprob_both', head))?.check?.error
    atMost(`fwd+bwd ${at}, gradients`, gradient, 3e-3, 3e-3, digits)
  }
  for (const { name, values } of cases) {
    if (name.endsWith('extra memory')) atMost(name, values?.extraBytes, 64 * 2 ** 20, 64 * 2 ** 20, mebibytes)
  }
  const explicit = find(`${model} explicit scoring, S=${length}: ours`)
  const rate = explicit === undefined ? undefined : explicit.work.tokens! / median(explicit.samples)
  const fraction = rate === undefined || peak === undefined ? undefined : (rate * flopsPerToken(body, length)) / peak
  atLeast(`${model} explicit, of peak`, fraction, 0.5, 0.7, percent)
  /** Compares with the fastest of PyTorch's styles. */
  const best = (contest: string) => {
    const peers = cases.filter((item) => item.name.startsWith(`${contest}: `) && !item.name.endsWith(': ours'))
    if (peers.length === 0) return undefined
    return ratio(Math.min(...peers.map(({ samples }) => median(samples))), seconds(`${contest}: ours`))
  }
  atLeast(`${model} implicit / transformers`, best(`${model} implicit scoring`), 2, 4)
  for (const kind of ['explicit', 'implicit'])
    atLeast(`${model} train ${kind} / transf.`, best(`${model} ${kind} training step`), 2, 3)
  return list
}

export const targetRows = (list: readonly Target[]): string[][] =>
  list.map(({ what, value, promised, aim, kept }) => [
    what,
    value,
    promised,
    aim,
    kept === undefined ? '-' : kept ? 'yes' : 'NO',
  ])
