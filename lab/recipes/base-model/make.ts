/**
 * Makes the base model: corpus, tokenizer, initial checkpoint, training by `train` with kind `sft`, and the folder that is shipped.
 * What is done is kept in the working folder, and a run that was interrupted goes on from there.
 */
import { existsSync } from 'node:fs'
import { mkdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { openCheckpoint } from '../../../lib/checkpoint/checkpoint.js'
import { nativeInfo } from '../../../lib/native/handles.js'
import { ImplexError } from '../../../lib/core/errors.js'
import { writeFileAtomic } from '../../../lib/core/atomic.js'
import { train } from '../../../lib/train/train.js'
import type { TrainStep } from '../../../lib/train/options.js'
import { modelCard } from './card.js'
import { corpus, row } from './corpus.js'
import type { Item, Topic } from './item.js'
import { writeInitialModel } from './model.js'
import { publish } from './publish.js'
import type { Recipe } from './settings.js'
import { trainTokenizer } from './tokenizer.js'

export interface MakeOptions {
  /** Corpus, initial model and training run. */
  work: string
  /** Folder of the finished checkpoint; an existing one is replaced. */
  out: string
  /** Ends the training after the current step; the same call continues from there. */
  drain?: AbortSignal
  onStage?: (stage: string) => void
  onStep?: (step: TrainStep) => void
}

/** Steps between checkpoints, about half a minute. */
const CHECKPOINT_STEPS = 100

/** @returns whether the model was made; false if `drain` ended the training */
export async function makeBaseModel(recipe: Recipe, options: MakeOptions): Promise<boolean> {
  const { work, out, drain, onStage, onStep } = options
  await mkdir(work, { recursive: true })
  await checkSameRecipe(join(work, 'recipe.json'), recipe)
  const data = join(work, 'corpus.jsonl')
  const heldOut = join(work, 'held-out.jsonl')
  const initial = join(work, 'initial')
  onStage?.('generating the corpus')
  const items = [...corpus(recipe.seed, recipe.conversations)]
  await writeRows(data, items)
  await writeRows(heldOut, corpus(recipe.seed + 1, recipe.heldOut))
  // Made anew each time, to the same bytes: if the recipe's code has changed meanwhile, train() sees it and refuses to go on.
  onStage?.('training the tokenizer')
  const tokenizer = trainTokenizer(items, recipe.vocabulary, recipe.shape.context)
  await writeInitialModel(initial, recipe.shape, tokenizer, recipe.seed)
  const result = await train(initial, data, {
    ...recipe.training,
    kind: 'sft',
    seed: recipe.seed,
    out: join(work, 'run'),
    resume: true,
    device: 'cpu',
    evaluation: { 'held-out': heldOut },
    checkpointSteps: CHECKPOINT_STEPS,
    ...(drain === undefined ? {} : { drain }),
    ...(onStage === undefined ? {} : { onStage }),
    ...(onStep === undefined ? {} : { onStep }),
  })
  const { model, summary } = result
  if (model === undefined || summary === undefined) return false
  const made = {
    recipe: 'base-model',
    ...recipe,
    parameters: await countParameters(model),
    tokens: tokenizer.size,
    corpus: countTopics(items),
    versions: { implex: summary.version, node: process.version, kernels: summary.kernels },
    run: {
      threads: nativeInfo().threads,
      steps: summary.steps,
      tokens: summary.tokens,
      seconds: Math.round(summary.seconds),
    },
  }
  await publish(model, out, {
    'recipe.json': `${JSON.stringify(made, null, 2)}\n`,
    'training-log.jsonl': await readFile(join(result.out, 'metrics.jsonl'), 'utf8'),
    'README.md': modelCard(made, summary),
  })
  return true
}

/** A working folder belongs to one recipe. A run of another recipe there is not continued. */
async function checkSameRecipe(file: string, recipe: Recipe): Promise<void> {
  const text = `${JSON.stringify(recipe, null, 2)}\n`
  if (!existsSync(file)) return writeFileAtomic(file, text)
  if ((await readFile(file, 'utf8')) !== text)
    throw new ImplexError(
      'ERR_RESUME_MISMATCH',
      `${file} belongs to another recipe: remove its folder, or give another folder with --work`,
      { path: file },
    )
}

function writeRows(file: string, items: Iterable<Item>): Promise<void> {
  let text = ''
  for (const item of items) text += `${JSON.stringify(row(item))}\n`
  return writeFileAtomic(file, text)
}

async function countParameters(folder: string): Promise<number> {
  const { spec } = await openCheckpoint(folder)
  return spec.weights.reduce((sum, { shape }) => sum + shape.reduce((product, size) => product * size, 1), 0)
}

function countTopics(items: readonly Item[]): Partial<Record<Topic, number>> {
  const counts: Partial<Record<Topic, number>> = {}
  for (const { topic } of items) counts[topic] = (counts[topic] ?? 0) + 1
  return counts
}
