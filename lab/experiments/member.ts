/**
 * One member of an experiment: a training with one kind and seed, the rewards of its model on every set, and what else is measured on it.
 * Its folder is a training run's, and `member.json`, written last, says that all is done.
 */
import { readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { readJsonl } from '../../lib/data/jsonl.js'
import { formatRow } from '../../lib/data/row-lines.js'
import { evaluate } from '../../lib/evaluate/evaluate.js'
import { STATISTICS } from '../../lib/evaluate/statistics.js'
import { RewardModel } from '../../lib/models/reward-model.js'
import { makeFolder, writeFileAtomic } from '../../lib/core/atomic.js'
import type { Json } from '../../lib/core/same-run.js'
import { train } from '../../lib/train/train.js'
import { explain } from './attribution.js'
import type { MemberContext } from './plan.js'
import type { AttributionLine, ExperimentKind, Member } from './result.js'

/** `member.json`. */
export interface FinishedMember {
  member: Member
  observation: Json
  attributions: AttributionLine[]
  /** From the first step to the last measurement, over all processes as far as the training counts them. */
  wallSeconds: number
}

/** @returns undefined when the drain signal came first: the training has a checkpoint to go on from */
export async function runMember(
  kind: ExperimentKind,
  seed: number,
  context: MemberContext,
): Promise<FinishedMember | undefined> {
  const { plan, settings, conduct, base } = context
  const name = `members/${kind}-${seed}`
  const folder = join(conduct.out, name)
  const record = join(folder, 'member.json')
  const before = await readRecord(record)
  if (before !== undefined) return before

  const sets = Object.fromEntries(plan.sets.map((set) => [set.name, context.dataOf(set.name)]))
  const stepsPerEpoch = Math.ceil(plan.train.length / settings.batchPairs)
  const { epochs, batchPairs, learningRate, evaluateEpochs, dtype, onLong } = settings
  const { device, microBatchTokens, recompute, cache, cacheDir, encodeThreads, signal, drain, onStep, onWarning } =
    conduct
  const common = { device, dtype, onLong, cache, cacheDir, encodeThreads, onWarning, now: context.now }
  const start = performance.now()
  const trained = await train(base, context.dataOf(TRAIN), {
    ...common,
    kind,
    out: folder,
    resume: true,
    epochs,
    batchPairs,
    learningRate,
    evaluateEpochs,
    seed,
    recompute,
    template: settings.template,
    evaluation: sets,
    checkpointSteps: stepsPerEpoch * evaluateEpochs,
    ...(kind === 'implicit' ? { beta: settings.beta } : {}),
    ...(kind === 'explicit' ? { pool: settings.pool } : {}),
    ...(microBatchTokens === undefined ? {} : { microBatchTokens }),
    ...(signal && { signal }),
    ...(drain && { drain }),
    ...(onStep && { onStep }),
  })
  if (trained.interrupted) return undefined
  const { model: path, summary } = trained as Required<typeof trained>

  using model = await RewardModel.open(path, {
    ...common,
    kind,
    template: settings.template,
    ...(kind === 'implicit' ? { reference: base, beta: settings.beta } : {}),
    ...(kind === 'explicit' ? { pool: settings.pool } : {}),
    ...(signal && { signal }),
  })
  const evaluation = await writeRewards(model, sets, join(folder, 'rewards'), context)
  const attributions =
    seed === settings.seeds[0] && kind !== 'generative' ? await explain(model, kind, seed, context) : []
  const observation = (await plan.observe?.({ kind, seed, model: path, now: context.now })) ?? null
  const finished: FinishedMember = {
    member: { kind, seed, folder: name, steps: summary.steps, seconds: summary.seconds, evaluation },
    observation,
    attributions,
    wallSeconds: (performance.now() - start) / 1000,
  }
  await writeFileAtomic(record, `${JSON.stringify(finished)}\n`)
  await rm(join(folder, 'checkpoints'), { recursive: true, force: true }).catch(() => {})
  if (!conduct.keepModels) await rm(path, { recursive: true, force: true }).catch(() => {})
  return finished
}

/** Name of the file that is trained on, beside the sets. */
export const TRAIN = 'train-data'

/** Scores every set into rewards/SET.jsonl. */
async function writeRewards(
  model: RewardModel,
  sets: Record<string, string>,
  folder: string,
  { conduct: { signal } }: MemberContext,
): Promise<Member['evaluation']> {
  await makeFolder(folder)
  const lines = new Map<string, string[]>(Object.keys(sets).map((name) => [name, []]))
  const sources = Object.fromEntries(Object.entries(sets).map(([name, file]) => [name, readJsonl(file)]))
  const report = await evaluate(model, sources, {
    resamples: 0,
    ...(signal && { signal }),
    onRow: (name, row) => {
      lines.get(name)!.push(formatRow(row, false))
    },
  })
  for (const [name, text] of lines) await writeFileAtomic(join(folder, `${name}.jsonl`), `${text.join('\n')}\n`)
  const known = (value: number) => (Number.isFinite(value) ? value : null)
  return Object.fromEntries(
    Object.entries(report).map(([name, { estimates }]) => [
      name,
      Object.fromEntries(STATISTICS.map((statistic) => [statistic, known(estimates[statistic].value)])),
    ]),
  ) as Member['evaluation']
}

async function readRecord(path: string): Promise<FinishedMember | undefined> {
  try {
    return JSON.parse(await readFile(path, 'utf8')) as FinishedMember
  } catch {
    return undefined // not there yet, or not whole: what it says is made again
  }
}
