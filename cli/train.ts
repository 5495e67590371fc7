/**
 * `implex train`: a run from flags or from a file of the same options, into a run folder, resumable.
 */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { type Command, Option } from 'commander'
import { ImplexError } from '../lib/core/errors.js'
import { shellWord } from '../lib/train/runs/shell-word.js'
import { TRAIN_OPTION_GROUPS, type TrainOptionName } from '../lib/train/option-table.js'
import type { TrainOptions } from '../lib/train/options.js'
import type { TrainResult } from '../lib/train/finish.js'
import { train } from '../lib/train/train.js'
import { EXIT, say, UsageError } from './exit.js'
import { Interrupt } from './interrupt.js'
import { integer, TRAIN_FILE_OPTIONS, trainFlag } from './options.js'
import { checkOptionNames, readOptionsFile } from './options-file.js'
import { count } from './score-summary.js'
import { TrainProgress } from './train-progress.js'

/** Flags of one call: an options file holds none of them. */
interface OwnFlags {
  config?: string
  resume?: boolean
  logSteps: number
  memoryLimit?: number
  quiet?: boolean
}

type Flags = Record<string, unknown> & OwnFlags

/** Flags that are no options of train(), by the option that each is listed before. */
const OWN: { [K in TrainOptionName]?: Option[] } = {
  kind: [new Option('--model <dir>', 'checkpoint folder in Hugging Face form')],
  out: [new Option('--data <file>', 'pairs as JSON Lines')],
  resume: [new Option('--config <file>', 'options as JSON, in camelCase; flags override them')],
  memoryLimit: [
    new Option('--log-steps <n>', 'steps between lines where stderr is no terminal').argParser(integer(1)).default(10),
  ],
}

export function addTrain(program: Command, finish: (status: number) => void): void {
  const command = program
    .command('train')
    .description('Train a reward model on preference pairs, into a run folder.')
    .usage('--model DIR --kind KIND --data FILE --out RUN_DIR [options]')
  for (const [heading, rows] of Object.entries(TRAIN_OPTION_GROUPS)) {
    for (const name of Object.keys(rows) as TrainOptionName[]) {
      for (const option of [...(OWN[name] ?? []), trainFlag(name)]) command.addOption(option.helpGroup(heading))
    }
  }
  command
    .addOption(new Option('--quiet', 'say nothing on stderr but warnings and errors').helpGroup('Running:'))
    .addHelpOption(new Option('-h, --help', 'print this help').helpGroup('Running:'))
    .addHelpText(
      'after',
      `
The defaults are those of arXiv 2507.07981, unless --recipe names others.
RUN_DIR gets config.json, metrics.jsonl, checkpoints/, the trained model/ (or
adapter/, with --lora-rank) and summary.json. An interrupted or killed run goes
on as if nothing had been:

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
      memoryLimit,
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
  if (!quiet) sayResult(result)
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
const OPTION_NAMES: ReadonlySet<string> = new Set(['model', 'data', ...TRAIN_FILE_OPTIONS])

async function readOptions(file: string): Promise<Record<string, unknown>> {
  const options = await readOptionsFile(file)
  checkOptionNames(file, options, OPTION_NAMES)
  return options
}

function hasConfig(out: string): boolean {
  return existsSync(join(out, 'config.json'))
}

function sayResult({ summary, model, adapter }: TrainResult): void {
  const { steps, seconds, errors, skipped, truncated, tokensPerSecond: rate, lastStep: last, evaluation } = summary!
  const lines = [
    `${count(steps)} steps in ${seconds.toFixed(1)} s (${count(rate)} tokens/s); loss of the last step ${shown(last?.loss)}`,
  ]
  if (errors > 0) lines.push(`${count(errors)} bad ${errors === 1 ? 'row was' : 'rows were'} left out`)
  if (skipped > 0) lines.push(`${count(skipped)} too long ${skipped === 1 ? 'row was' : 'rows were'} left out`)
  if (truncated > 0) lines.push(`${count(truncated)} too long ${truncated === 1 ? 'row was' : 'rows were'} shortened`)
  for (const [name, set] of Object.entries(evaluation))
    lines.push(
      `${name}: loss ${shown(set.loss)}${set.accuracy === undefined ? '' : `, accuracy ${shown(set.accuracy)}`}`,
    )
  lines.push(adapter === undefined ? `model: ${model}` : `adapter: ${adapter}`)
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
    { cause: error, path: error.path },
  )
}
