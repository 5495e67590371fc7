/**
 * `implex train`: a run from flags or from a file of the same options, into a run folder, resumable.
 */
import { POOLS } from '../lib/data/rewards.js'
import { ON_LONG } from '../lib/data/encode.js'
import { DEVICES, DTYPES } from '../lib/native/device.js'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { type Command, InvalidArgumentError } from 'commander'
import { ImplexError } from '../lib/core/errors.js'
import { ON_ERROR } from '../lib/data/score-rows.js'
import { ROWS_OPTIONS } from '../lib/data/shapes/names.js'
import { shellWord } from '../lib/train/runs/shell-word.js'
import { FREEZABLE, OPTIMIZERS, TRAIN_KINDS, type TrainOptions } from '../lib/train/options.js'
import { SCHEDULES } from '../lib/train/schedule.js'
import { train, type TrainResult } from '../lib/train/train.js'
import { EXIT, say, UsageError } from './exit.js'
import { Interrupt } from './interrupt.js'
import { choice, integer } from './options.js'
import { checkOptionNames, readOptionsFile } from './options-file.js'
import { count } from './score-summary.js'
import { TrainProgress } from './train-progress.js'

/** Flags that are not options of train() and do not belong into a config file. */
interface OwnFlags {
  config?: string
  resume?: boolean
  logSteps: number
  memoryLimit?: number
  quiet?: boolean
}

type Flags = Record<string, unknown> & OwnFlags

export function addTrain(program: Command, finish: (status: number) => void): void {
  program
    .command('train')
    .description('Train a reward model on preference pairs, into a run folder.')
    .usage('--model DIR --kind KIND --data FILE --out RUN_DIR [options]')
    .option('--model <dir>', 'checkpoint folder in Hugging Face form')
    .addOption(choice('--kind <kind>', 'explicit, implicit, generative or sft', TRAIN_KINDS))
    .option('--data <file>', 'pairs as JSON Lines')
    .option('--out <dir>', 'folder of the run; made if it is not there')
    .option('--evaluation <name=file...>', 'data sets to evaluate during training', collectSets)
    .addOption(choice('--rows <shape>', 'shape of the rows, see docs/formats.md (default: auto)', ROWS_OPTIONS))
    .addOption(choice('--on-error <what>', 'a bad row ends the run (stop, default) or is left out (skip)', ON_ERROR))
    .option('--evaluate-epochs <n>', 'epochs between evaluations (default: 1)', integer(1))
    .option('--config <file>', 'options as JSON, in camelCase; flags override them')
    .option('--resume', 'go on from the last checkpoint in --out')
    .optionsGroup('Reward and loss:')
    .option('--reference <dir>', 'implicit: initial, none or a checkpoint (default: initial)')
    .option('--beta <number>', 'implicit: scale of the reward (default: 0.01)', number)
    .option('--length-normalized', 'implicit: divide rewards by the tokens of the response')
    .addOption(choice('--pool <where>', 'explicit: last token, or mean over the response (default: last)', POOLS))
    .option('--head <file>', "explicit: score.weight to start from (default: the checkpoint's, else random)")
    .option('--label-smoothing <number>', 'share of labels taken to be wrong (default: 0)', number)
    .option('--centering <number>', 'weight of (r+ + r-)^2 in the loss (default: 0)', number)
    .optionsGroup('Optimization:')
    .option('--epochs <n>', 'passes over the data (default: 5)', integer(1))
    .option('--batch-pairs <n>', 'pairs per step (default: 32)', integer(1))
    .option('--micro-batch-tokens <n>', 'most tokens at once (default: 4096 on the CPU)', integer(1))
    .option('--learning-rate <number>', 'default: 1e-6', number)
    .addOption(choice('--schedule <name>', 'constant, linear or cosine (default: constant)', SCHEDULES))
    .option('--warmup-steps <number>', 'steps, or below 1 a share of all (default: 0)', number)
    .addOption(choice('--optimizer <name>', 'adamw, rmsprop or sgd (default: adamw)', OPTIMIZERS))
    .option('--adam-beta1 <number>', 'default: 0.9', number)
    .option('--adam-beta2 <number>', 'default: 0.999', number)
    .option('--rmsprop-alpha <number>', 'default: 0.99', number)
    .option('--epsilon <number>', 'adamw, rmsprop (default: 1e-8)', number)
    .option('--weight-decay <number>', 'default: 0', number)
    .option('--momentum <number>', 'rmsprop, sgd (default: 0)', number)
    .option('--max-norm <number>', 'clip the gradient to this norm (default: 0, no clipping)', number)
    .option('--freeze <parts>', `some of ${FREEZABLE.join(', ')}`, (text) => text.split(','))
    .option('--seed <n>', 'of the order of the data and of a new head (default: 0)', integer(0))
    .optionsGroup('Running:')
    .addOption(choice('--device <device>', 'auto, cpu or cuda (default: auto)', DEVICES))
    .addOption(choice('--dtype <type>', 'weights and activations: f32 or bf16 (default: f32)', DTYPES))
    .option('--recompute', 'less memory, about a third more time')
    .option('--template <name>', 'auto, default, none, or a .jinja file (default: auto)')
    .addOption(choice('--on-long <what>', 'too long rows: error, skip or truncate-prompt (default: error)', ON_LONG))
    .option('--checkpoint-steps <n>', 'steps between checkpoints (default: each epoch, or 10 minutes)', integer(0))
    .option('--log-steps <n>', 'steps between lines where stderr is no terminal', integer(1), 10)
    .option('--memory-limit <MiB>', 'refuse a run that needs more (default: what is free)', integer(1))
    .option('--encode-threads <n>', 'threads that tokenize (default: 1)', integer(1, 64))
    .option('--cache-dir <dir>', 'for reference log-probabilities (default: ~/.cache/implex)')
    .option('--no-cache', 'keep no reference log-probabilities')
    .option('--quiet', 'say nothing on stderr but warnings and errors')
    .helpOption('-h, --help', 'print this help')
    .addHelpText(
      'after',
      `
The defaults are those of arXiv 2507.07981. RUN_DIR gets config.json,
metrics.jsonl, checkpoints/, the trained model/ and summary.json. An interrupted
or killed run goes on as if nothing had been:

  implex train --model llama --kind explicit --data pairs.jsonl --out runs/a
  implex train --out runs/a --resume
`,
    )
    .action(async (flags: Flags) => finish(await run(flags)))
}

async function run(flags: Flags): Promise<number> {
  const { config, resume = false, logSteps, memoryLimit, quiet = false, ...given } = flags
  if (given.cache === true) delete given.cache // commander's default of --no-cache
  const { model, data, options } = await gather(given, config, resume)
  using interrupt = new Interrupt('finishing the step, then writing a checkpoint; press Ctrl-C again to stop at once')
  using progress = new TrainProgress({ quiet, logSteps })
  let result: TrainResult
  try {
    result = await train(model, data, {
      ...options,
      resume,
      ...(memoryLimit === undefined ? {} : { memoryLimit: memoryLimit * 2 ** 20 }),
      drain: interrupt.signal,
      onStage: (stage) => progress.stage(stage),
      onStep: (step) => progress.step(step),
      onEvaluation: (evaluation) => progress.evaluation(evaluation),
      onWarning: (message) => say(`warning: ${message}`),
    })
  } catch (error) {
    progress.clear()
    throw withAdvice(error, options.out)
  }
  progress.clear()
  if (result.interrupted) {
    const next = hasConfig(options.out)
      ? `implex train --out ${shellWord(options.out)} --resume`
      : 'the same command again'
    say(`interrupted${result.steps > 0 ? ` after step ${result.steps}` : ''}; continue with: ${next}`)
    return EXIT.interrupted
  }
  if (!quiet) sayResult(result, options.out)
  return EXIT.done
}

/** Options of the run to be resumed, of --config and of the flags, each overriding those before. */
async function gather(
  flags: Record<string, unknown>,
  config: string | undefined,
  resume: boolean,
): Promise<{ model: string; data: string; options: TrainOptions }> {
  const fromFile = config === undefined ? {} : await readOptions(config)
  const out = flags.out ?? fromFile.out
  const before = resume && typeof out === 'string' && hasConfig(out) ? await readOptions(join(out, 'config.json')) : {}
  const { model, data, ...options } = { ...before, ...fromFile, ...flags }
  for (const [name, value] of Object.entries({ model, kind: options.kind, data, out: options.out })) {
    if (typeof value !== 'string' || value === '')
      throw new UsageError(`--${name} is required (or "${name}" in --config)`)
  }
  if (data === '-') throw new UsageError('--data must be a file, because every epoch and a resumed run read it again')
  return { model: model as string, data: data as string, options: options as unknown as TrainOptions }
}

/** Names of options that a file may hold. */
const OPTION_NAMES = new Set(
  (
    'model kind data out evaluation evaluateEpochs reference beta lengthNormalized pool head labelSmoothing centering epochs batchPairs ' +
    'microBatchTokens learningRate schedule warmupSteps optimizer adamBeta1 adamBeta2 rmspropAlpha epsilon weightDecay momentum maxNorm ' +
    'freeze seed device dtype recompute template onLong rows onError checkpointSteps encodeThreads cacheDir cache'
  ).split(' '),
)

async function readOptions(file: string): Promise<Record<string, unknown>> {
  const options = await readOptionsFile(file)
  checkOptionNames(file, options, OPTION_NAMES)
  return options
}

function hasConfig(out: string): boolean {
  return existsSync(join(out, 'config.json'))
}

function sayResult({ summary, model }: TrainResult, out: string): void {
  const { steps, seconds, errors, tokens_per_second: rate, last_step: last, evaluation } = summary!
  const lines = [
    `${count(steps)} steps in ${seconds.toFixed(1)} s (${count(rate)} tokens/s); loss of the last step ${shown(last?.loss)}`,
  ]
  if (errors > 0) lines.push(`${count(errors)} bad ${errors === 1 ? 'row was' : 'rows were'} left out`)
  for (const [name, set] of Object.entries(evaluation))
    lines.push(
      `${name}: loss ${shown(set.loss)}${set.accuracy === undefined ? '' : `, accuracy ${shown(set.accuracy)}`}`,
    )
  lines.push(`model: ${model ?? join(out, 'model')}`)
  say(lines.join('\n        '))
}

function shown(value: unknown): string {
  return typeof value === 'number' ? String(Number(value.toPrecision(4))) : 'n/a'
}

/** What is on disk is not lost with the process. */
function withAdvice(error: unknown, out: string): unknown {
  if (!(error instanceof ImplexError) || !hasConfig(out)) return error
  if (error.code !== 'ERR_DISK_FULL' && error.code !== 'ERR_IO') return error
  return new ImplexError(
    error.code,
    `${error.message}\nThe last checkpoint is kept. Continue with: implex train --out ${shellWord(out)} --resume`,
    { cause: error, ...(error.path === undefined ? {} : { path: error.path }) },
  )
}

function number(text: string): number {
  const value = text.trim() === '' ? Number.NaN : Number(text)
  if (Number.isFinite(value)) return value
  throw new InvalidArgumentError('It must be a number.')
}

/** NAME=FILE, gathered into an object. */
export function collectSets(text: string, sets: Record<string, string> = {}): Record<string, string> {
  const at = text.indexOf('=')
  if (at <= 0 || at === text.length - 1) throw new InvalidArgumentError('It must be NAME=FILE.')
  const name = text.slice(0, at)
  if (Object.hasOwn(sets, name)) throw new InvalidArgumentError(`The name ${name} is there twice.`)
  return { ...sets, [name]: text.slice(at + 1) }
}
