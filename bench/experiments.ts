/**
 * Runs the experiments whose numbers docs/experiments.md shows, and keeps what came out in bench/results/experiments.
 *
 *   node dist/bench/experiments.js [NAME…]      all, or those named; an interrupted one goes on
 *
 * Run folders lie in build-experiments. Those that need ../shared are left out where it is absent.
 */
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { isAbsolute, join, relative, resolve } from 'node:path'
import { commitOf } from './suites/commit.js'
import type { ExperimentResult } from '../lab/experiments/result.js'
import { nativeInfo } from '../lib/native/handles.js'
import type { Json } from '../lib/core/same-run.js'

const root = resolve(import.meta.dirname, '..', '..')
const folder = join(root, 'bench', 'results', 'experiments')
export const RECORD_FORMAT = 'implex-experiment-1'

/** The experiment's result without what only its folder explains, and where it came from. */
export interface ExperimentRecord extends Omit<ExperimentResult, 'format'> {
  format: typeof RECORD_FORMAT
  /** Runs a command in the repository's root. */
  command: string[]
  commit: string | null
  dirty: boolean | null
  machine: { cpu: string; processors: number; platform: string }
  node: string
}

const stories = ['--model', '../shared/models/stories260K']
const personaFile = ['--data', '../shared/data/persona/agreeableness.jsonl']
const paperData = ['--data-dir', '../shared/data/paper']
/** Evaluates only at the start and the end, because the sets are larger than the training data. */
const ends = (epochs: number) => ['--epochs', String(epochs), '--evaluate-epochs', String(epochs)]

const RUNS: Record<string, string[]> = {
  'persona-base': ['persona'],
  'persona-base-anthropic': ['persona', ...personaFile],
  'persona-stories': [
    'persona',
    ...stories,
    ...personaFile,
    ...'--kinds explicit,implicit --epochs 20 --learning-rate 1e-3'.split(' '),
  ],
  'theory-base': ['theory'],
  'theory-stories': ['theory', ...stories],
  'hamiltonian-base': [
    'hamiltonian',
    ...'--kinds explicit,implicit --seeds 0,1 --train-pairs 500 --test-pairs 100'.split(' '),
  ],
  'hamiltonian-stories': [
    'hamiltonian',
    ...stories,
    ...'--kinds explicit,implicit --seeds 0 --learning-rate 1e-3 --train-pairs 200 --test-pairs 50 --epochs 5'.split(
      ' ',
    ),
  ],
  'rewrites-base': [
    'rewrites',
    '--config',
    'lab/configs/rewrites-ultrafeedback-small.json',
    ...paperData,
    ...ends(5),
    ...'--kinds explicit,implicit --train-pairs 100 --test-pairs 50'.split(' '),
  ],
  'rewrites-stories': [
    'rewrites',
    '--config',
    'lab/configs/rewrites-rewardmath-small.json',
    ...stories,
    ...paperData,
    ...ends(2),
    ...'--kinds explicit,implicit --seeds 0 --learning-rate 3e-4 --train-pairs 200 --test-pairs 50'.split(' '),
  ],
}

function record(
  name: string,
  command: string[],
  out: string,
  source: { commit: string | null; dirty: boolean | null },
) {
  const { format: _, ...result } = JSON.parse(readFileSync(join(out, 'results.json'), 'utf8')) as ExperimentResult
  const info = nativeInfo()
  const kept: ExperimentRecord = {
    ...result,
    format: RECORD_FORMAT,
    model: { ...result.model, path: portable(result.model.path) as string },
    settings: portable(result.settings) as ExperimentResult['settings'],
    command,
    ...source,
    machine: {
      cpu: info.cpu.name,
      processors: availableParallelism(),
      platform: `${process.platform} ${process.arch}`,
    },
    node: process.versions.node,
  }
  mkdirSync(folder, { recursive: true })
  writeFileSync(join(folder, `${name}.json`), `${JSON.stringify(kept, null, 1)}\n`)
}

/** Makes absolute paths relative to the repository, so that the record does not show the machine's folders. */
function portable(value: Json): Json {
  if (typeof value === 'string') return isAbsolute(value) ? relative(root, value) : value
  if (Array.isArray(value)) return value.map(portable)
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, portable(one)]))
}

const wanted = process.argv.slice(2)
for (const name of wanted) {
  if (name in RUNS) continue
  console.error(`no experiment is named ${name}; there are ${Object.keys(RUNS).join(', ')}`)
  process.exit(2)
}
const source = await commitOf(root)
for (const [name, args] of Object.entries(RUNS)) {
  if (wanted.length > 0 && !wanted.includes(name)) continue
  if (args.some((arg) => arg.startsWith('../shared')) && !existsSync(join(root, '..', 'shared'))) {
    console.error(`${name}: left out, ../shared is absent`)
    continue
  }
  const out = join(root, 'build-experiments', name)
  const command = ['implex', 'experiment', ...args, '--out', relative(root, out)]
  console.error(`\n${command.join(' ')}`)
  const { status } = spawnSync(
    process.execPath,
    [join(root, 'dist', 'cli', 'main.js'), ...command.slice(1), '--resume'],
    { cwd: root, stdio: 'inherit' },
  )
  if (status !== 0) process.exit(status ?? 1)
  record(name, command, out, source)
}
