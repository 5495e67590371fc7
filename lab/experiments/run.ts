/**
 * Runs an experiment: data, members one after the other, comparison, results.json. Killed at any moment it goes on where it was: members that
 * are done are kept, and the one under way continues from its last checkpoint.
 */
import { createHash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { basename, join } from 'node:path'
import { type Checkpoint, openCheckpoint } from '../../lib/checkpoint/checkpoint.js'
import { modelFingerprint } from '../../lib/checkpoint/fingerprint.js'
import { EncodePool } from '../../lib/data/encode-pool.js'
import type { EncoderDescription } from '../../lib/data/encode-worker.js'
import { readJsonl } from '../../lib/data/jsonl.js'
import { NUMERICS_VERSION } from '../../lib/data/reference-cache.js'
import type { PairRow } from '../../lib/data/rows.js'
import { nativeInfo } from '../../lib/native/handles.js'
import { ImplexError } from '../../lib/core/errors.js'
import { makeFolder, writeFileAtomic } from '../../lib/core/atomic.js'
import type { Json } from '../../lib/core/same-run.js'
import { checkRun, type RunConfig, RunFolder } from '../../lib/train/runs/run-folder.js'
import { DEFAULT_BORDER } from '../../lib/text/conversation.js'
import { loadPairs } from '../../lib/train/pairs.js'
import { withTokens } from './base.js'
import { compare, type MemberRewards } from './comparison.js'
import { type FinishedMember, runMember, TRAIN } from './member.js'
import { parametersOf, trainingFacts } from './model-facts.js'
import type { ResolvedExperiment } from './options.js'
import { readText } from '../../lib/core/files.js'
import { type ExperimentOutcome, readResults } from './outcome.js'
import type { ExperimentPlan, PlannedSet, MemberContext } from './plan.js'
import { type AttributionLine, type ExperimentResult, RESULT_FORMAT, type ResultTable } from './result.js'

/**
 * @throws ImplexError ERR_RESUME_MISMATCH, ERR_IN_USE for a used folder; for data, model, tokens or device that cannot be used, before any
 *   training; and what train() and RewardModel.open() throw
 */
export async function runExperiment(plan: ExperimentPlan, resolved: ResolvedExperiment): Promise<ExperimentOutcome> {
  const { settings, conduct } = resolved
  const start = performance.now()
  await using folder = await RunFolder.open(conduct.out, conduct.resume, conduct.onWarning)
  const resultsPath = join(folder.path, 'results.json')
  const complete = folder.config === undefined ? undefined : await readResults(resultsPath)
  const now = folder.config === undefined ? new Date() : new Date(folder.config.run.now)
  const stage = (text: string) => conduct.onStage?.(text)
  const drained = () => conduct.drain?.aborted === true
  const interrupted = { out: folder.path, interrupted: true }

  stage('opening the model')
  const checkpoint = await openCheckpoint(resolved.model)
  const encoders = await encodersOf(resolved, now)
  const texts = new Map([[TRAIN, plan.train], ...plan.sets.map(({ name, rows }) => [name, rows] as const)])
  const config = await configOf(plan, resolved, checkpoint, encoders, texts, now)
  if (folder.config === undefined) await folder.writeConfig(config)
  else checkRun(folder.path, folder.config.run, config.run, conduct.onWarning)
  await folder.clean()
  if (complete !== undefined) return { out: folder.path, interrupted: false, result: complete }

  stage('writing the data')
  const dataOf = (name: string) => join(folder.path, 'data', `${name}.jsonl`)
  await makeFolder(join(folder.path, 'data'))
  for (const [name, rows] of texts) await writeFileAtomic(dataOf(name), jsonLines(rows))
  const missing = [...new Set([...encoders[0]!.addedTokens, ...plan.tokens])]
  const base = await withTokens(resolved.model, missing, join(folder.path, 'base'))
  stage('checking the data')
  await checkData(resolved, base, texts, dataOf, now)

  const before = await beforeTables(plan, base, now, folder.path)
  const context: MemberContext = { ...resolved, plan, base, dataOf, now }
  const finished: FinishedMember[] = []
  const total = settings.kinds.length * settings.seeds.length
  for (const seed of settings.seeds) {
    for (const kind of settings.kinds) {
      if (drained()) return interrupted
      stage(`${kind}, seed ${seed} (${finished.length + 1} of ${total})`)
      const member = await runMember(kind, seed, context)
      if (member === undefined) return interrupted
      finished.push(member)
    }
  }

  stage('comparing')
  // Kind by kind, as a reader wants them; trained seed by seed, so that an early look shows every kind.
  finished.sort((a, b) => settings.kinds.indexOf(a.member.kind) - settings.kinds.indexOf(b.member.kind))
  const members = finished.map(({ member }) => member)
  const rewards: MemberRewards[] = []
  for (const { kind, seed, folder: name } of members)
    rewards.push({ kind, seed, rewards: await readRewards(join(folder.path, name, 'rewards'), plan.sets) })
  const setsOf = (shift: string) => plan.sets.filter((set) => set.shift === shift).map(({ name }) => name)
  const sets = plan.sets.map(({ name, label, shift }) => {
    return { name, label, shift, pairs: rewards[0]!.rewards[name]!.chosen.length }
  })
  const comparison = compare(rewards, plan.shifts, setsOf, { resamples: settings.resamples })
  const observations = Object.fromEntries(finished.map(({ member, observation }) => [member.folder, observation]))
  const conclusions = plan.conclude({ settings, sets, members, comparison, observations })
  await writeAttributions(join(folder.path, 'attributions.jsonl'), finished)

  const { facts, trained } = await trainingFacts(join(folder.path, members[0]!.folder))
  const counted = sets.map(({ name, pairs }, i) => ({ name, pairs, of: plan.sets[i]!.rows.length }))
  const spent = finished.reduce((sum, { wallSeconds }) => sum + wallSeconds, 0)
  const result: ExperimentResult = {
    format: RESULT_FORMAT,
    experiment: plan.experiment,
    title: plan.title,
    question: plan.question,
    headline: conclusions.headline,
    model: { path: resolved.model, name: basename(resolved.model), parameters: parametersOf(checkpoint) },
    settings: { ...(settings as unknown as Record<string, Json>), ...plan.dataSettings },
    shifts: plan.shifts,
    sets,
    members,
    comparison,
    tables: [...before, ...conclusions.tables],
    paper: conclusions.paper,
    notes: [
      ...conclusions.notes,
      ...leftOut([{ name: 'Training data', pairs: trained, of: plan.train.length }, ...counted]),
    ],
    date: now.toISOString(),
    seconds: Math.max(spent, (performance.now() - start) / 1000),
    ...facts,
  }
  await writeFileAtomic(resultsPath, `${JSON.stringify(result, null, 2)}\n`)
  return { out: folder.path, interrupted: false, result }
}

/** One for each kind: what the tokenizer lacks shows here. */
async function encodersOf({ model, settings, conduct }: ResolvedExperiment, now: Date): Promise<EncoderDescription[]> {
  const encoders: EncoderDescription[] = []
  for (const kind of settings.kinds) {
    try {
      const { signal } = conduct
      const pool = await EncodePool.start({ path: model, template: settings.template, kind, now }, 1, { signal })
      pool.close()
      encoders.push(pool.description)
    } catch (error) {
      if (!(error instanceof ImplexError) || kind !== 'generative' || encoders.length === 0) throw error
      throw new ImplexError(
        error.code,
        `${error.message}; or leave this kind out: --kinds ${settings.kinds.filter((one) => one !== kind).join(',')}`,
        { cause: error, path: error.path },
      )
    }
  }
  return encoders
}

/** Tokenizes everything as each kind will: a bad or too long row is told before the first training. */
async function checkData(
  { settings, conduct }: ResolvedExperiment,
  base: string,
  texts: ReadonlyMap<string, PairRow[]>,
  dataOf: (set: string) => string,
  now: Date,
): Promise<void> {
  const { spec, contextLength, border = DEFAULT_BORDER } = await openCheckpoint(base)
  for (const kind of settings.kinds) {
    const pool = await EncodePool.start({ path: base, template: settings.template, kind, now }, conduct.encodeThreads)
    try {
      for (const name of texts.keys()) {
        await loadPairs(
          readJsonl(dataOf(name)),
          pool,
          { kind, border, onLong: settings.onLong, contextLength, vocabularySize: spec.vocabSize },
          { signal: conduct.signal },
        )
      }
    } finally {
      pool.close()
    }
  }
}

async function configOf(
  plan: ExperimentPlan,
  { model, settings, conduct }: ResolvedExperiment,
  checkpoint: Checkpoint,
  encoders: readonly EncoderDescription[],
  texts: ReadonlyMap<string, PairRow[]>,
  now: Date,
): Promise<RunConfig> {
  const options = { ...(settings as unknown as Record<string, Json>), ...plan.dataSettings }
  const data = Object.fromEntries(
    [...texts].map(([name, rows]) => [name, createHash('sha256').update(jsonLines(rows)).digest('hex')]),
  )
  const { version } = nativeInfo()
  return {
    options: { experiment: plan.experiment, model, ...options, device: conduct.device, keepModels: conduct.keepModels },
    run: {
      decisive: {
        experiment: plan.experiment,
        ...options,
        template: encoders[0]!.templateSource,
        model: await modelFingerprint(checkpoint, conduct.cache ? conduct.cacheDir : undefined, conduct.signal),
        text: encoders[0]!.fingerprint,
        data,
      },
      environment: { version, numerics: NUMERICS_VERSION },
      now: now.toISOString(),
    },
  }
}

/** Measured once: a resumed experiment reads them back. */
async function beforeTables(plan: ExperimentPlan, base: string, now: Date, folder: string): Promise<ResultTable[]> {
  if (plan.before === undefined) return []
  const path = join(folder, 'before.json')
  if (existsSync(path)) return JSON.parse(await readText(path)) as ResultTable[]
  const tables = await plan.before(base, now)
  await writeFileAtomic(path, `${JSON.stringify(tables)}\n`)
  return tables
}

/** Back from the files, so that a resumed experiment compares what an undisturbed one does. */
async function readRewards(folder: string, sets: readonly PlannedSet[]): Promise<MemberRewards['rewards']> {
  const rewards: [name: string, MemberRewards['rewards'][string]][] = []
  for (const { name, rows } of sets) {
    const path = join(folder, `${name}.jsonl`)
    const prompts = new Map<string, number>()
    const one: MemberRewards['rewards'][string] = { chosen: [], rejected: [], prompts: [] }
    for (const line of (await readText(path)).split('\n')) {
      if (line === '') continue
      const { index, chosen_reward, rejected_reward } = JSON.parse(line) as Record<string, number>
      if (chosen_reward === undefined) continue // left out by onLong
      one.chosen.push(chosen_reward)
      one.rejected.push(rejected_reward!)
      const prompt = JSON.stringify(rows[index!]!.prompt)
      if (!prompts.has(prompt)) prompts.set(prompt, prompts.size)
      one.prompts.push(prompts.get(prompt)!)
    }
    rewards.push([name, one])
  }
  return Object.fromEntries(rewards)
}

/** One sentence per set from which `onLong: 'skip'` left out pairs. */
function leftOut(counts: readonly { name: string; pairs: number; of: number }[]): string[] {
  return counts
    .filter(({ pairs, of }) => pairs < of)
    .map(
      ({ name, pairs, of }) =>
        `${name}: ${of - pairs} of ${of} pairs are longer than the model's context and were left out.`,
    )
}

/** Writes one line per response with the values that every kind gives its tokens. */
async function writeAttributions(path: string, finished: readonly FinishedMember[]): Promise<void> {
  const lines = new Map<string, AttributionLine>()
  for (const { attributions } of finished) {
    for (const line of attributions) {
      const key = `${line.set} ${line.index} ${line.side}`
      lines.set(key, { ...(lines.get(key) ?? line), ...line })
    }
  }
  await writeFileAtomic(path, jsonLines([...lines.values()]))
}

function jsonLines(rows: readonly unknown[]): string {
  return rows.map((row) => `${JSON.stringify(row)}\n`).join('')
}
