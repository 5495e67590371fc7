/**
 * Whole models on a device: the golden checkpoints scored and trained in f32 and bf16 against float64, the same bits whatever the batch,
 * and a real pretrained model against the CPU. A program of its own: a device that crashes costs these cases only.
 *
 *   node dist/test/gpu/models.js DEVICE [PART]        PART: only cases whose name has it
 */
import type { Row } from '../../lib/data/rows.js'
import type { DeviceName, DType } from '../../lib/native/device.js'
import { RewardModel } from '../../lib/models/reward-model.js'
import { ARCHITECTURES, BOUNDS, type Golden, golden, kindsOf, MEASURES, measure } from '../support/golden.js'
import { KINDS, measureTraining } from '../support/golden-train.js'
import { sharedPath } from '../support/shared.js'
import { failed, type GpuCase, passed, skipped } from './cases.js'

const SUITE = 'models'
const device = (process.argv[2] ?? 'cuda') as DeviceName
const part = process.argv[3] ?? ''

function tell(item: GpuCase): void {
  process.stdout.write(`${JSON.stringify(item)}\n`)
}

/** Runs a case; what it returns is the largest error as a share of its bound. */
async function attempt(name: string, run: () => Promise<number>): Promise<void> {
  if (!name.includes(part)) return
  try {
    const worst = await run()
    tell(worst <= 1 ? passed(SUITE, name, worst) : failed(SUITE, name, `${worst.toPrecision(3)} of what is allowed`))
  } catch (error) {
    tell(failed(SUITE, name, error instanceof Error ? error.message : String(error)))
  }
}

async function scoring(files: Golden, dtype: DType): Promise<number> {
  const { errors } = await measure(files, dtype, device)
  return Math.max(...MEASURES.map((name) => errors[name] / BOUNDS[dtype][name]))
}

/** Alone, reversed, in small batches, prompts not shared: the same bits, else Infinity. And the same in a second run. */
async function invariance(files: Golden, dtype: DType): Promise<number> {
  const rows: Row[] = files.pairs.map(({ prompt, chosen, rejected }) => ({ prompt, chosen, rejected }))
  for (const [kind, options] of Object.entries(kindsOf(files, device))) {
    using model = await RewardModel.open(files.path, { ...options, dtype })
    const { rewards } = await model.score(rows)
    const alone: number[][] = []
    for (const row of rows) alone.push((await model.score([row])).rewards[0]!)
    const apart: number[][] = []
    for (const { prompt, chosen, rejected } of files.pairs) {
      const { rewards: single } = await model.score([
        { prompt, responses: [chosen] },
        { prompt, responses: [rejected] },
      ])
      apart.push(single.flat())
    }
    const others = {
      again: (await model.score(rows)).rewards,
      alone,
      reversed: (await model.score([...rows].reverse())).rewards.reverse(),
      'in small batches': (await model.score(rows, { batchTokens: 61 })).rewards,
      'prompt not shared': apart,
    }
    for (const [what, values] of Object.entries(others)) {
      for (const [i, pair] of values.entries())
        for (const [k, value] of pair.entries())
          if (!Object.is(value, rewards[i]![k])) throw new Error(`${kind}, ${what}: row ${i} has other bits`)
    }
  }
  return 0
}

/**
 * f32: the contract's 1e-3. bf16: the loss as p("Yes") and gradients as twice a projection, by docs/numerics.md: a margin of two rewards
 * near each other has their errors and not their size, and so has every gradient of an explicit pair. Losses of later steps are compared
 * in f32 only: AdamW's first steps have the size of the learning rate in the direction of each gradient's sign, which rounding decides.
 */
async function training(architecture: string, kind: (typeof KINDS)[number], dtype: DType): Promise<number> {
  const found = await measureTraining(architecture, kind, { device, dtype })
  if (dtype === 'bf16') return Math.max(found.loss / 2 ** -6, found.norm / 2 ** -3, found.head / 2 ** -3)
  const { loss, norm, head, steps, final, rewards = 0, zero = 0 } = found
  return Math.max(...[loss, norm, head, steps, final, rewards].map((error) => error / 1e-3), zero / 1e-6)
}

/** On statements and stories: log-probabilities of a response as the CPU has them. */
async function stories(model: string, dtype: DType): Promise<number> {
  const pairs = [
    [
      'Once upon a time, there was a little girl named Lily.',
      ' She loved to play in the park.',
      ' park the in play She.',
    ],
    ['One day, a boy named Tim saw a big dog.', ' The dog was very happy.', ' happy very The was dog.'],
  ].map(([prompt, chosen, rejected]) => ({ prompt: prompt!, chosen: chosen!, rejected: rejected! }))
  const on = async (where: DeviceName) => {
    using opened = await RewardModel.open(model, { kind: 'implicit', beta: 1, template: 'none', device: where, dtype })
    return (await opened.score(pairs)).rewards.flat()
  }
  const [want, got] = [await on('cpu'), await on(device)]
  const bound = dtype === 'f32' ? 1e-5 : 2 ** -6
  return Math.max(...got.map((value, i) => Math.abs(value - want[i]!) / Math.abs(want[i]!) / bound))
}

for (const dtype of ['f32', 'bf16'] as const) {
  for (const architecture of ARCHITECTURES) {
    const files = golden(architecture)
    const name = `${architecture} ${dtype}`
    if (files === undefined) {
      tell(skipped(SUITE, name, '../shared/golden is absent'))
      continue
    }
    await attempt(`${name}: rewards`, () => scoring(files, dtype))
    await attempt(`${name}: the same bits in any batch`, () => invariance(files, dtype))
    for (const kind of KINDS) await attempt(`${name}: training ${kind}`, () => training(architecture, kind, dtype))
  }
  const model = sharedPath('models/stories260K')
  if (model === undefined) tell(skipped(SUITE, `stories260K ${dtype}`, '../shared/models is absent'))
  else await attempt(`stories260K ${dtype}: as on the CPU`, () => stories(model, dtype))
}
