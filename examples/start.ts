/**
 * The main job of `npm start`: makes a tiny random model, scores examples/pairs.jsonl with it as an implicit and as an explicit reward
 * model, checks that no reward depends on its batch, and prints what came out, in 80 columns.
 */
import { readFile } from 'node:fs/promises'
import { join, relative } from 'node:path'
import type { PairRow } from '../lib/data/rows.js'
import { PreferenceMetrics } from '../lib/metrics.js'
import { nativeInfo } from '../lib/native/binding.js'
import { RewardModel, type RewardModelOptions, type Scores } from '../lib/reward-model.js'
import { writeTinyModels } from './tiny-model.js'

const ROOT = join(import.meta.dirname, '..', '..')
const DATA = join(ROOT, 'examples', 'pairs.jsonl')
const MODELS = join(ROOT, 'dist', 'examples', 'models')
const SEED = 1
const SHOWN = 6
/** Times that the pairs are scored in one call, to measure and to fill several batches. */
const REPEATS = 20

interface Result extends Scores {
  seconds: number
  /** Rewards compared bit by bit with those of `rewards`. */
  compared: number
}

/** @param print takes lines, without the newline at their end */
export async function scoreExample(print: (text: string) => void): Promise<void> {
  const pairs = (await readFile(DATA, 'utf8'))
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as PairRow)
  const { policy, reference, parameters } = await writeTinyModels(MODELS, SEED)
  const implicit = await scoreAsked(policy, pairs, { kind: 'implicit', reference })
  const explicit = await scoreAsked(policy, pairs, { kind: 'explicit' })

  const { cpu, threads } = nativeInfo()
  const tokens = implicit.rows.reduce((sum, row) => sum + sequenceTokens(row), 0)
  print(`
Rewards of ${pairs.length} preference pairs by a tiny random model

  model    Llama with ${count(parameters)} random weights, made just now (seed ${SEED})
  data     ${relative(ROOT, DATA)}: ${count(tokens)} tokens (bytes; prompts counted twice)
  engine   CPU, f32, ${cpu.kernels} kernels, ${threads} thread${threads === 1 ? '' : 's'}

                                         implicit reward     explicit reward
  prompt                      tokens    chosen  rejected    chosen  rejected`)
  for (const [i, row] of implicit.rows.slice(0, SHOWN).entries()) {
    const prompt = pairs[i]?.prompt as string
    const cells = [...(implicit.rewards[i] ?? []), ...(explicit.rewards[i] ?? [])].map(signed)
    print(
      `  ${cut(prompt, 22)}${`${row.promptTokens}+${row.tokens.join('/')}`.padStart(12)}${cells.map((cell) => cell.padStart(10)).join('')}`,
    )
  }
  print(`  ... and ${pairs.length - SHOWN} more

  kind       accuracy  mean margin   pairs/s   tokens/s`)
  for (const [kind, { rewards, seconds }] of Object.entries({ implicit, explicit })) {
    const metrics = new PreferenceMetrics()
    for (const [chosen, rejected] of rewards) metrics.add(chosen!, rejected!)
    const speed = (amount: number) => count((amount * REPEATS) / seconds)
    print(
      `  ${kind.padEnd(11)}${metrics.accuracy.toFixed(3).padStart(8)}${signed(metrics.meanMargin).padStart(13)}` +
        `${speed(pairs.length).padStart(10)}${speed(tokens).padStart(11)}`,
    )
  }
  print(`
What this shows: text became tokens by the model's chat template and tokenizer,
and tokens became rewards: implicit (log-probability against a reference model)
and explicit (a linear head at the last token), from one engine.
Checked: ${count(implicit.compared + explicit.compared)} rewards of these pairs, each scored alone and in batches of
other make-up, have the same bits as in the table.
What it does not show: quality. The weights are random, so accuracies near 0.5
are expected, and neither a reward nor the sign of a margin means anything here.

Next:
  npx implex score --model CHECKPOINT --kind explicit --data ROWS.jsonl
  npx implex doctor
CHECKPOINT is a folder in Hugging Face form, such as the one made here,
${relative(ROOT, policy)}; README.md has the row formats.`)
}

/** Scores the pairs together, then each alone and all several times over, and compares. */
async function scoreAsked(path: string, pairs: PairRow[], options: RewardModelOptions): Promise<Result> {
  using model = await RewardModel.open(path, { device: 'cpu', ...options })
  const together = await model.score(pairs)
  const alone: number[][] = []
  for (const pair of pairs) alone.push((await model.score([pair])).rewards[0]!)
  const start = performance.now()
  const repeated = (await model.score(Array.from({ length: REPEATS }, () => pairs).flat())).rewards
  const seconds = (performance.now() - start) / 1000

  const others = [...alone, ...repeated]
  for (const [i, rewards] of others.entries()) {
    const expected = together.rewards[i % pairs.length]!
    if (!rewards.every((reward, k) => Object.is(reward, expected[k]))) {
      throw new Error(
        `pair ${i % pairs.length}: ${rewards} instead of ${expected}; please report it with the output of implex doctor`,
      )
    }
  }
  return { ...together, seconds, compared: 2 * others.length }
}

/** As if the prompt were not shared. */
function sequenceTokens({ promptTokens, tokens }: { promptTokens: number; tokens: number[] }): number {
  return tokens.reduce((sum, length) => sum + promptTokens + length, 0)
}

const count = (value: number) => Math.round(value).toLocaleString('en-US')
const signed = (value: number) => `${value < 0 ? '-' : '+'}${Math.abs(value).toFixed(5)}`

/** Pads or cuts text to a width on a terminal, where Chinese characters take two columns. */
function cut(text: string, width: number): string {
  let result = ''
  let used = 0
  for (const character of text.replaceAll(/\s+/g, ' ')) {
    const wide = /\p{Script=Han}|[\uff00-\uff60\u3000-\u303f]/u.test(character) ? 2 : 1
    if (used + wide > width - 1) {
      result += '…'
      used += 1
      break
    }
    result += character
    used += wide
  }
  return result + ' '.repeat(width - used)
}
