/**
 * `implex experiment`: the paper's experiments, one subcommand each. Options come from flags or from a file with the same names.
 */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { type Command, InvalidArgumentError } from 'commander'
import { hamiltonianExperiment, SEPARATOR_KINDS } from '../lab/experiments/hamiltonian/hamiltonian.js'
import { EXPERIMENT_KINDS, type ExperimentOptions } from '../lab/experiments/options.js'
import { personaExperiment } from '../lab/experiments/persona/persona.js'
import type { ExperimentName } from '../lab/experiments/result.js'
import { rewritesExperiment } from '../lab/experiments/rewrites/rewrites.js'
import type { ExperimentOutcome } from '../lab/experiments/outcome.js'
import { theoryExperiment } from '../lab/experiments/theory/theory.js'
import { shellWord } from '../lib/train/runs/shell-word.js'
import { ON_LONG } from '../lib/data/encode.js'
import { EXIT, say, UsageError } from './exit.js'
import { experimentTable } from '../lab/report/experiment-table.js'
import { Interrupt } from './interrupt.js'
import { choice, collectSets, integer, positiveNumber, trainFlag } from './options.js'
import { checkOptionNames, readOptionsFile } from './options-file.js'
import { stdoutWrite } from './line-writer.js'
import { TrainProgress } from './train-progress.js'

type Flags = Record<string, unknown> & { config?: string; resume?: boolean; quiet?: boolean }

const RUNS: Record<ExperimentName, (options: never) => Promise<ExperimentOutcome>> = {
  persona: personaExperiment,
  hamiltonian: hamiltonianExperiment,
  rewrites: rewritesExperiment,
  theory: theoryExperiment,
}

export function addExperiment(program: Command, finish: (status: number) => void): void {
  const group = program
    .command('experiment')
    .description('Run an experiment from arXiv 2507.07981, which asks why implicit reward models generalize worse.')
    .usage('NAME --out RUN_DIR [options]')
    .helpOption('-h, --help', 'print this help')
    .helpCommand(false)
    .addHelpText(
      'after',
      `
Each experiment trains every kind of reward model with several seeds and writes
a folder. implex report makes a page from it:

  implex experiment persona --out runs/persona
  implex report runs/persona
`,
    )

  const persona = group
    .command('persona')
    .description('Does a preference hold in other words? (section 5.1)')
    .option('--data <file>', "rows with question and answer_matching_behavior (default: implex's statements)")
  dataOptions(persona, { train: 80, test: 40, seed: 875 })
  const hamiltonian = group
    .command('hamiltonian')
    .description('Must a model write a Hamiltonian cycle to recognize it? (section 3.2)')
    .option('--vertices <n>', 'vertices per graph (default: 10)', integer(4, 100))
    .option('--edge-probability <p>', 'probability of an edge outside the cycle (default: 0.2)', share)
    .addOption(
      choice(
        '--separators <kind>',
        'separators as added tokens (added) or as plain text (plain) (default: added)',
        SEPARATOR_KINDS,
      ),
    )
    .option('--generations <n>', 'number of test graphs for which the model writes a cycle (default: 200)', integer(0))
  dataOptions(hamiltonian, { train: 1000, test: 200, seed: 982 })
  const rewrites = group
    .command('rewrites')
    .description('How much accuracy remains in other wordings, languages and domains? (section 5.2)')
    .option('--train <file>', 'pairs to train on')
    .option('--data <name=file...>', 'named sets of pairs to evaluate on', collectSets)
    .option('--shifts <shift=set,set...>', 'which sets form a shift (default: each set by itself)', collectShifts)
    .option('--data-dir <dir>', 'folder that relative paths of data refer to (default: the current one)')
  dataOptions(rewrites, { seed: 517 })
  for (const command of [persona, hamiltonian, rewrites]) trainingOptions(command)
  const theory = group
    .command('theory')
    .description('Do theorems 1 and 2 and the one-step dynamics hold? Predicted against measured.')
    .option('--data-seed <n>', 'seed of the prompts and responses (default: 0)', integer(0))
  for (const command of [persona, hamiltonian, rewrites, theory]) {
    commonOptions(command)
    command
      .helpOption('-h, --help', 'print this help')
      .action(async (flags: Flags) => finish(await run(command.name() as ExperimentName, flags, optionNames(command))))
  }
}

function dataOptions(command: Command, defaults: { train?: number; test?: number; seed: number }): void {
  const shown = (value: number | undefined) => (value === undefined ? 'all' : String(value))
  command
    .option('--train-pairs <n>', `number of training pairs (default: ${shown(defaults.train)})`, integer(1))
    .option('--test-pairs <n>', `number of pairs per test set (default: ${shown(defaults.test)})`, integer(1))
    .option('--data-seed <n>', `seed for choosing the data (default: ${defaults.seed})`, integer(0))
}

function trainingOptions(command: Command): void {
  command
    .optionsGroup('Training:')
    .option('--kinds <list>', `some of ${EXPERIMENT_KINDS.join(',')} (default: all)`, (text) => text.split(','))
    .option('--seeds <list>', 'seeds; each kind is trained once per seed (default: 0,1,2)', integers)
    .addOption(trainFlag('epochs', "default: the paper's; for the default model what suits it"))
    .option('--learning-rate <number>', 'likewise', positiveNumber)
    .addOption(trainFlag('batchPairs'))
    .addOption(trainFlag('beta'))
    .addOption(trainFlag('pool'))
    .addOption(trainFlag('evaluateEpochs', 'epochs between evaluations (default: a quarter)'))
    .addOption(choice('--on-long <what>', 'too long rows: error, skip or truncate-prompt (default: error)', ON_LONG))
    .option('--resamples <n>', 'number of bootstrap samples for the intervals (default: 1000)', integer(0, 1_000_000))
    .option('--attributions <n>', 'number of pairs per set whose tokens are explained (default: 4)', integer(0, 1000))
    .option('--keep-models', 'keep every trained model')
    .addOption(trainFlag('microBatchTokens'))
    .addOption(trainFlag('recompute'))
}

function commonOptions(command: Command): void {
  command
    .optionsGroup('Running:')
    .option('--model <dir>', "checkpoint folder in Hugging Face format (default: implex's base model)")
    .option('--out <dir>', 'folder of the experiment; created if it does not exist')
    .option('--resume', 'continue the experiment in --out')
    .option('--config <file>', 'options as JSON, in camelCase; flags override them')
  for (const name of ['device', 'dtype', 'template', 'encodeThreads', 'cacheDir', 'cache'] as const)
    command.addOption(trainFlag(name))
  command.option('--quiet', 'nothing on stderr but warnings and errors')
}

async function run(name: ExperimentName, flags: Flags, known: ReadonlySet<string>): Promise<number> {
  const { config, resume = false, quiet = false, ...given } = flags
  if (given.cache === true) delete given.cache // commander's default of --no-cache
  const options = await gather(name, given, config, resume, known)
  using interrupt = new Interrupt('finishing the step, then writing a checkpoint; press Ctrl-C again to stop at once')
  using progress = new TrainProgress({ quiet, logSteps: Number.POSITIVE_INFINITY })
  let outcome: ExperimentOutcome
  try {
    outcome = await RUNS[name]({
      ...options,
      resume,
      drain: interrupt.signal,
      onStage: (stage: string) => {
        if (!quiet) progress.line(stage)
      },
      onStep: (step: Parameters<TrainProgress['step']>[0]) => progress.step(step),
      onWarning: (message: string) => say(`warning: ${message}`),
    } as never)
  } finally {
    progress.clear()
  }
  const out = shellWord(options.out)
  if (outcome.interrupted) {
    say(`interrupted; continue with: implex experiment ${name} --out ${out} --resume`)
    return EXIT.interrupted
  }
  await stdoutWrite()(`${experimentTable(outcome.result!)}\n`)
  if (!quiet) say(`results: ${join(options.out, 'results.json')}\n        for an HTML page: implex report ${out}`)
  return EXIT.done
}

/** Merges the options of the experiment to resume, of --config and of the flags. Later ones override earlier ones. */
async function gather(
  name: ExperimentName,
  flags: Record<string, unknown>,
  config: string | undefined,
  resume: boolean,
  known: ReadonlySet<string>,
): Promise<ExperimentOptions> {
  const fromFile = config === undefined ? {} : await readOptions(config, name, known)
  const out = flags.out ?? fromFile.out
  if (typeof out !== 'string' || out === '') throw new UsageError('--out is required (or "out" in --config)')
  const before = join(out, 'config.json')
  const begun = resume && existsSync(before) ? await readOptions(before, name, known) : {}
  const options = { ...begun, ...fromFile, ...flags, out }
  if (name === 'rewrites') {
    for (const required of ['train', 'data'])
      if (!(required in options)) throw new UsageError(`--${required} is required (or "${required}" in --config)`)
  }
  return options
}

/** A file of options, or an experiment's own config.json. What is in it is checked by the experiment. */
async function readOptions(
  file: string,
  name: ExperimentName,
  known: ReadonlySet<string>,
): Promise<Record<string, unknown>> {
  const { experiment = name, ...options } = await readOptionsFile(file)
  if (experiment !== name)
    throw new UsageError(`${file} belongs to the experiment ${String(experiment)}, not to ${name}`)
  checkOptionNames(file, options, known)
  return Object.fromEntries(Object.entries(options).filter(([, found]) => found !== null))
}

/** Names of options that a file may hold: those of the flags, without the ones of a single call. */
function optionNames(command: Command): ReadonlySet<string> {
  const once = new Set(['config', 'resume', 'quiet'])
  return new Set(command.options.map((option) => option.attributeName()).filter((name) => !once.has(name)))
}

function integers(text: string): number[] {
  return text.split(',').map((one) => integer(0)(one.trim()))
}

function share(text: string): number {
  const value = text.trim() === '' ? Number.NaN : Number(text)
  if (value >= 0 && value <= 1) return value
  throw new InvalidArgumentError('It must be a number from 0 to 1.')
}

/** Collects SHIFT=SET,SET into an object. */
function collectShifts(text: string, shifts: Record<string, string[]> = {}): Record<string, string[]> {
  const at = text.indexOf('=')
  if (at <= 0 || at === text.length - 1) throw new InvalidArgumentError('It must be SHIFT=SET,SET.')
  const name = text.slice(0, at)
  if (Object.hasOwn(shifts, name)) throw new InvalidArgumentError(`The shift ${name} appears twice.`)
  return { ...shifts, [name]: text.slice(at + 1).split(',') }
}
