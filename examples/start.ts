/**
 * The main job of `npm start`: runs the persona experiment on the model that comes with implex, prints its table and what it means, and
 * writes the HTML page. An interrupted experiment continues; a complete one is shown again.
 */
import { existsSync } from 'node:fs'
import { join, relative } from 'node:path'
import { experimentTable, wrap } from '../lab/report/experiment-table.js'
import { compared } from '../lab/experiments/findings.js'
import { personaExperiment } from '../lab/experiments/persona/persona.js'
import type { ExperimentResult } from '../lab/experiments/result.js'
import { nativeInfo } from '../lib/native/handles.js'
import { writeReport } from '../lab/report/index.js'

const ROOT = join(import.meta.dirname, '..', '..')
export const FOLDER = join(ROOT, 'runs', 'start')

export interface StartOptions {
  out?: string
  /** Receives the result in parts, each without a final newline. */
  print: (text: string) => void
  /** Receives the name of the current stage. */
  progress: (stage: string) => void
  drain?: AbortSignal
  seeds?: number[]
}

/** @returns false when it was interrupted */
export async function startExperiment({ out = FOLDER, print, progress, drain, seeds }: StartOptions): Promise<boolean> {
  const known = existsSync(join(out, 'results.json'))
  if (!known) {
    const { cpu, threads } = nativeInfo()
    print(
      wrap(
        'This is one experiment from the paper "Why is Your Language Model a Poor Implicit Reward Model?" (arXiv 2507.07981). It uses a language model ' +
          `with 0.6 million parameters, ${cpu.kernels} kernels and ${threads} thread${threads === 1 ? '' : 's'}. Every kind of reward model learns from ` +
          '80 pairs to prefer agreement over disagreement. Then it ranks responses with words that it has not seen.',
      ),
    )
  }
  const { interrupted, result } = await personaExperiment({
    out,
    resume: existsSync(join(out, 'config.json')),
    cache: false,
    onStage: progress,
    ...(drain && { drain }),
    ...(seeds && { seeds }),
  })
  if (interrupted) return false
  const page = join(out, 'report.html')
  await writeReport([out], { out: page })
  print(`
${experimentTable(result!)}

${meaning(result!)}

The page: ${relative(process.cwd(), page)}
${known ? `(written on ${result!.date.slice(0, 10)}; remove ${relative(process.cwd(), out)} to run it again)\n` : ''}
Next:
  npx implex experiment persona --model CHECKPOINT --out runs/mine
  npx implex score --model CHECKPOINT --kind explicit --data ROWS.jsonl
  npx implex doctor
CHECKPOINT is a folder in Hugging Face format.
The row formats are in docs/formats.md.`)
  return true
}

/** Says in two or three sentences what the table shows. The text is made from the numbers, so it stays true for any result. */
export function meaning({ comparison }: Pick<ExperimentResult, 'comparison'>): string {
  const of = (kind: 'explicit' | 'implicit', shift: string) => compared({ comparison }, kind, shift)
  const [explicit, implicit] = [of('explicit', 'paraphrase'), of('implicit', 'paraphrase')]
  const learned = [of('explicit', 'original'), of('implicit', 'original')].every((one) => (one?.mean ?? 0) > 0.95)
  if (explicit?.mean == null || implicit?.mean == null) return ''
  const [low, high] = [explicit.low ?? explicit.mean, implicit.high ?? implicit.mean]
  const first = learned
    ? 'The explicit and the implicit models learned their training words. '
    : 'Not every kind learned its training words, so the rest of the table says little. '
  const second =
    low > high
      ? 'On unseen words the explicit models rank more pairs correctly than the implicit ones, and the intervals do not overlap. An implicit reward is a sum over tokens, and no training pair contained these words.'
      : explicit.mean > implicit.mean
        ? 'On unseen words the explicit models do better, but with so few seeds the intervals overlap.'
        : 'On unseen words the explicit models do no better here. The paper found the opposite for models with a billion parameters and more.'
  return wrap(first + second)
}
