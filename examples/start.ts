/**
 * The main job of `npm start`: the persona experiment on the model that comes with implex, its table, what that means, and a page of it.
 * An interrupted one goes on; a complete one is shown again.
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
  /** Lines of the result, without the newline at their end. */
  print: (text: string) => void
  /** What is being done. */
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
        `Why is your language model a poor implicit reward model? One experiment of the paper of that name (arXiv 2507.07981), with a language model of ` +
          `0.6 million parameters, on ${cpu.kernels} kernels and ${threads} thread${threads === 1 ? '' : 's'}: every kind of reward model learns to prefer ` +
          'agreement over disagreement from 80 pairs, and is asked again in words that it has not seen.',
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
${known ? `(of ${result!.date.slice(0, 10)}; remove ${relative(process.cwd(), out)} to run it again)\n` : ''}
Next:
  npx implex experiment persona --model CHECKPOINT --out runs/mine
  npx implex score --model CHECKPOINT --kind explicit --data ROWS.jsonl
  npx implex doctor
CHECKPOINT is a folder in Hugging Face form; README.md has the row formats.`)
  return true
}

/** Two lines that say what the table shows, whatever it shows. */
export function meaning({ comparison }: Pick<ExperimentResult, 'comparison'>): string {
  const of = (kind: 'explicit' | 'implicit', shift: string) => compared({ comparison }, kind, shift)
  const [explicit, implicit] = [of('explicit', 'paraphrase'), of('implicit', 'paraphrase')]
  const learned = [of('explicit', 'original'), of('implicit', 'original')].every((one) => (one?.mean ?? 0) > 0.95)
  if (explicit?.mean == null || implicit?.mean == null) return ''
  const [low, high] = [explicit.low ?? explicit.mean, implicit.high ?? implicit.mean]
  const first = learned
    ? 'Both kinds learned their training words. '
    : 'Not every kind learned its training words, so what follows says little. '
  const second =
    low > high
      ? 'In other words the explicit kind still ranks right and the implicit one does not: its reward is made of tokens, and these were in no training pair.'
      : explicit.mean > implicit.mean
        ? 'In other words the explicit kind does better, but over so few seeds the intervals overlap.'
        : 'In other words the explicit kind does no better here: the paper found the opposite for models of a billion parameters and more.'
  return wrap(first + second)
}
