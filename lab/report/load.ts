/**
 * Run folders, read for a report: an experiment (lab/experiments/result.ts) or one training (lib/train/runs/run-folder.ts).
 * Whatever is wrong with a folder is ERR_RUN_INVALID and names the file, and the line where there are lines.
 */
import { existsSync } from 'node:fs'
import { basename, join, resolve } from 'node:path'
import { isFolder, printable, readText } from '../../lib/core/files.js'
import { readJsonl } from '../../lib/data/jsonl.js'
import { type AttributionLine, EXPERIMENTS, type ExperimentResult, RESULT_FORMAT } from '../experiments/result.js'
import { ImplexError } from '../../lib/core/errors.js'
import { isPlainObject } from '../../lib/core/arguments.js'
import { shellWord } from '../../lib/train/runs/shell-word.js'
import { summaryFromJson, type TrainSummary } from '../../lib/train/runs/summary.js'
import type { Check } from './check.js'
import { attributionLine, experimentResult, metricsLine } from './result-check.js'

/** A line of metrics.jsonl: a step, or with `evaluation` a data set. */
export interface MetricsLine {
  step: number
  epoch: number
  evaluation?: string
  [name: string]: unknown
}

/** The curves and rewards of one training run. */
export interface Training {
  kind: string
  seed: number
  /** Empty if metrics.jsonl is gone. */
  metrics: MetricsLine[]
  /** By set: [chosen, rejected] of each pair; a set whose file is gone is absent. */
  rewards: Map<string, [number, number][]>
}

interface Folder {
  /** As given. */
  path: string
  name: string
  config: Record<string, unknown>
  trainings: Training[]
}

export interface ExperimentRun extends Folder {
  type: 'experiment'
  result: ExperimentResult
  attributions: AttributionLine[]
}

export interface TrainingRun extends Folder {
  type: 'training'
  summary: TrainSummary
}

export type Run = ExperimentRun | TrainingRun

/** @throws ImplexError ERR_RUN_INVALID, ERR_IO */
export async function loadRun(path: string): Promise<Run> {
  const folder = await isFolder(path)
  if (folder === undefined) throw invalid(path, 'there is no such folder')
  if (!folder) throw invalid(path, 'is a file; give the folder of an experiment or a training run')
  const has = (name: string) => existsSync(join(path, name))
  if (has('results.json')) return loadExperiment(path)
  const config = has('config.json') ? await readObject(join(path, 'config.json')) : undefined
  if (config === undefined)
    throw invalid(
      path,
      'contains no run (neither results.json nor config.json); give the --out folder of implex experiment or implex train',
    )
  const { experiment } = config
  if (typeof experiment === 'string' || has('members')) throw unfinishedExperiment(path, experiment)
  if (!has('summary.json'))
    throw invalid(
      path,
      `the training run is not complete (there is no summary.json); continue it with: implex train --out ${shellWord(path)} --resume`,
    )
  return loadTraining(path, config)
}

async function loadExperiment(path: string): Promise<ExperimentRun> {
  const file = join(path, 'results.json')
  const value = await readObject(file)
  if (value['format'] !== RESULT_FORMAT) {
    const found =
      value['format'] === undefined
        ? 'has no "format"'
        : `has the format ${printable(JSON.stringify(value['format']), 40)}`
    throw invalid(file, `${found}; this version of implex reads format ${RESULT_FORMAT}; use the version that wrote it`)
  }
  const wrong = experimentResult(value, '')
  if (wrong !== undefined) throw invalid(file, `is damaged: ${wrong}`)
  const result = value as unknown as ExperimentResult
  const trainings: Training[] = []
  for (const { kind, seed, folder } of result.members) {
    const rewards: Training['rewards'] = new Map()
    for (const { name } of result.sets) {
      const pairs = await readRewards(join(path, folder, 'rewards', `${name}.jsonl`))
      if (pairs !== undefined) rewards.set(name, pairs)
    }
    trainings.push({ kind, seed, metrics: await readLines(join(path, folder, 'metrics.jsonl'), metricsLine), rewards })
  }
  const config = existsSync(join(path, 'config.json')) ? await readObject(join(path, 'config.json')) : {}
  const attributions = await readLines<AttributionLine>(join(path, 'attributions.jsonl'), attributionLine)
  return { type: 'experiment', path, name: nameOf(path), config, result, trainings, attributions }
}

async function loadTraining(path: string, config: Record<string, unknown>): Promise<TrainingRun> {
  const file = join(path, 'summary.json')
  const summary = await readObject(file)
  const { kind, evaluation, steps, seconds } = summary
  if (
    typeof kind !== 'string' ||
    !isPlainObject(evaluation) ||
    typeof steps !== 'number' ||
    typeof seconds !== 'number'
  )
    throw invalid(file, 'is not a summary of implex train')
  const metrics = await readLines<MetricsLine>(join(path, 'metrics.jsonl'), metricsLine)
  const seed = typeof config['seed'] === 'number' ? config['seed'] : 0
  const training = { kind, seed, metrics, rewards: new Map() }
  return {
    type: 'training',
    path,
    name: nameOf(path),
    config,
    summary: summaryFromJson(summary),
    trainings: [training],
  }
}

function nameOf(path: string): string {
  return basename(resolve(path))
}

async function readObject(file: string): Promise<Record<string, unknown>> {
  const text = await readText(file)
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (error) {
    throw invalid(file, `is not valid JSON: ${printable((error as Error).message)}`)
  }
  if (!isPlainObject(value)) throw invalid(file, 'must be a JSON object')
  return value
}

/** Undefined if there is no such file; the report is then made without it. */
async function readLines<T = MetricsLine>(file: string, check: Check): Promise<T[]> {
  if (!existsSync(file)) return []
  const lines: T[] = []
  for await (const row of readJsonl(file)) {
    const fail = (reason: string) => invalid(file, `line ${row.line}: ${reason}`, row.line)
    if (row.error !== undefined || row.text === undefined) throw fail(row.error?.message ?? 'cannot be read')
    let value: unknown
    try {
      value = JSON.parse(row.text)
    } catch (error) {
      throw fail(`not valid JSON: ${printable((error as Error).message)}`)
    }
    const wrong = check(value, '')
    if (wrong !== undefined) throw fail(wrong)
    lines.push(value as T)
  }
  return lines
}

interface RewardLine {
  chosen_reward?: number
  rejected_reward?: number
  error?: unknown
}

const rewardLine: Check = (value) => {
  if (!isPlainObject(value)) return 'it must be an object'
  const { chosen_reward: chosen, rejected_reward: rejected, error, skipped } = value
  if (error !== undefined || skipped === true) return undefined
  return typeof chosen === 'number' && typeof rejected === 'number'
    ? undefined
    : 'chosen_reward and rejected_reward must be numbers'
}

async function readRewards(file: string): Promise<[number, number][] | undefined> {
  if (!existsSync(file)) return undefined
  const lines = await readLines<RewardLine>(file, rewardLine)
  return lines.flatMap(({ chosen_reward: chosen, rejected_reward: rejected }) =>
    chosen === undefined || rejected === undefined ? [] : [[chosen, rejected] as [number, number]],
  )
}

function unfinishedExperiment(path: string, experiment: unknown): ImplexError {
  const name = EXPERIMENTS.find((one) => one === experiment) ?? 'NAME'
  return invalid(
    path,
    `the experiment is not complete (there is no results.json); continue it with: implex experiment ${name} --out ${shellWord(path)} --resume`,
  )
}

function invalid(path: string, message: string, line?: number): ImplexError {
  return new ImplexError('ERR_RUN_INVALID', `${path}: ${message}`, { path, line })
}
