/**
 * `implex score`: reads rows and writes their rewards in input order and in bounded memory. A run can be resumed.
 */
import { POOLS } from '../lib/data/rewards.js'
import { ON_ERROR } from '../lib/data/score-rows.js'
import { stat } from 'node:fs/promises'
import type { Command } from 'commander'
import { writeFileAtomic } from '../lib/core/atomic.js'
import type { Checkpoint } from '../lib/checkpoint/checkpoint.js'
import { modelFingerprint } from '../lib/checkpoint/fingerprint.js'
import { type JsonlSource, readJsonl } from '../lib/data/jsonl.js'
import { ON_LONG, REWARD_KINDS, type OnLong, type RewardKind } from '../lib/data/encode.js'
import { defaultCacheDir, NUMERICS_VERSION } from '../lib/data/reference-cache.js'
import type { Border } from '../lib/checkpoint/trained-with.js'
import { ROWS_OPTIONS, type RowsOption } from '../lib/data/shapes/names.js'
import { DEVICES, DTYPES, type DeviceName, type DType } from '../lib/native/device.js'
import { ImplexError } from '../lib/core/errors.js'
import { RewardModel } from '../lib/models/reward-model.js'
import type { RewardModelOptions } from '../lib/models/reward-options.js'
import { EXIT, say, UsageError } from './exit.js'
import { Interrupt } from './interrupt.js'
import { stdoutWrite } from './line-writer.js'
import { checkOutputs } from './outputs.js'
import {
  borderOption,
  choice,
  type HeadFlags,
  headOptions,
  integer,
  modelOf,
  positiveNumber,
  type StepFlags,
  stepOptions,
} from './options.js'
import { Progress } from './progress.js'
import type { RunIdentity } from './resume.js'
import { ScoreOutput } from './score-output.js'
import { formatRow } from '../lib/data/row-lines.js'
import { snakeKeys } from '../lib/core/keys.js'
import { describeSummary, ScoreTally, summarize } from './score-summary.js'
import { VERSION } from './version.js'

interface ScoreFlags extends HeadFlags, StepFlags {
  model?: string
  adapter?: string
  kind: RewardKind
  data: string
  rows?: RowsOption
  reference?: string
  beta?: number
  pool?: 'last' | 'mean'
  border?: Border
  template?: string
  out: string
  summary?: string
  device?: 'auto' | DeviceName
  dtype?: DType
  batchTokens?: number
  encodeThreads?: number
  onLong?: OnLong
  onError: 'stop' | 'skip'
  labels?: boolean
  logprobs?: boolean
  limit?: number
  resume?: boolean
  force?: boolean
  cacheDir?: string
  cache: boolean
  quiet?: boolean
}

export function addScore(program: Command, finish: (status: number) => void): void {
  const command = program.command('score')
  command
    .description('Score a file of preference pairs or response groups.')
    .usage('--model DIR --kind KIND --data FILE [options]')
    .option('--model <dir>', 'checkpoint folder in Hugging Face format')
    .option('--adapter <dir>', 'LoRA adapter of the model; without --model, also of the base that it names')
    .addOption(choice('--kind <kind>', 'explicit, implicit or generative', REWARD_KINDS).makeOptionMandatory())
    .requiredOption('--data <file>', 'rows as JSON Lines; - reads standard input')
    .addOption(choice('--rows <shape>', 'row shape, see docs/formats.md (default: auto)', ROWS_OPTIONS))
    .option('--reference <dir>', 'implicit: reference checkpoint (default: none, or the model without --adapter)')
    .option('--beta <number>', 'implicit: scale of the reward (default: 0.01)', positiveNumber)
  for (const option of [...headOptions(), ...stepOptions()]) command.addOption(option)
  command
    .addOption(
      choice(
        '--pool <where>',
        'explicit: head on the last token (last) or mean over the response (mean) (default: last)',
        POOLS,
      ),
    )
    .option('--template <name>', 'chat template: auto, default, none or a .jinja file (default: auto)')
    .addOption(borderOption())
    .option('--out <file>', 'file for the rewards; - writes to standard output', '-')
    .option('--summary <file>', 'write a summary of the run as JSON to this file')
    .addOption(choice('--device <device>', 'auto, cpu or cuda (default: auto)', DEVICES))
    .addOption(choice('--dtype <type>', 'type of the weights in memory: f32 or bf16 (default: f32)', DTYPES))
    .option('--batch-tokens <n>', 'maximum number of tokens in a batch (default: 4096 on the CPU)', integer(1))
    .option('--encode-threads <n>', 'number of tokenizer threads (default: 1)', integer(1, 64))
    .addOption(
      choice(
        '--on-long <what>',
        'rows longer than the context: error, skip or truncate-prompt (default: error)',
        ON_LONG,
      ),
    )
    .addOption(
      choice(
        '--on-error <what>',
        'at a bad row, end the run (stop) or write its error and continue (skip)',
        ON_ERROR,
      ).default('stop'),
    )
    .option('--labels', "explicit: also write the value of each of the head's labels")
    .option('--logprobs', 'implicit: also write log-probabilities, in total and per token')
    .option('--limit <n>', 'stop after this many input rows', integer(0))
    .option('--resume', 'continue an interrupted run that wrote to the same --out')
    .option('--force', 'overwrite --out, finished or not')
    .option('--cache-dir <dir>', 'cache folder for reference log-probabilities (default: ~/.cache/implex)')
    .option('--no-cache', 'do not cache reference log-probabilities')
    .option('--quiet', 'print only warnings and errors on stderr')
    .helpOption('-h, --help', 'print this help')
    .addHelpText(
      'after',
      `
A row is {"prompt", "chosen", "rejected"} or {"prompt", "responses": [...]}.
It may have an "id". Texts may be lists of {"role", "content"}. The output has
one line per row, in the same order, with all digits of the rewards. With
--rows, or by their keys, it also reads the forms of published data sets.

  implex score --model llama-rm --kind explicit --data pairs.jsonl --out r.jsonl
  implex score --model policy --reference base --kind implicit --data -
`,
    )
    .action(async (flags: ScoreFlags) => finish(await score(flags)))
}

async function score(flags: ScoreFlags): Promise<number> {
  checkFlags(flags)
  const path = await modelOf(flags)
  await checkPlaces({ ...flags, model: path })
  using interrupt = new Interrupt('finishing the current batch; press Ctrl-C again to stop at once')
  await using output = await ScoreOutput.take(flags.out, { force: flags.force, resume: flags.resume }, warn)
  const source = readJsonl(flags.data, { rows: flags.rows, limit: flags.limit })
  await source.check() // a missing file shows before the model is loaded
  if (flags.resume && (await output.isComplete(source))) {
    if (!flags.quiet) say(`${flags.out} is complete; there is nothing to resume`)
    return EXIT.done
  }

  const now = output.begun === undefined ? new Date() : new Date(output.begun.now)
  const start = performance.now()
  using model = await RewardModel.open(path, modelOptions(flags, now, interrupt.signal))
  const run = output.resumable ? await identify(flags, model, interrupt.signal) : {}
  const loadSeconds = (performance.now() - start) / 1000

  const tally = new ScoreTally()
  await output.open(run, now, source, tally)
  let seconds = 0
  try {
    seconds = await scoreAll(flags, model, tally, output, interrupt.signal)
  } catch (error) {
    await output.flush().catch(() => {})
    throw withPlace(error, flags, output.resumable)
  }
  if (interrupt.signal.aborted) {
    const next = output.resumable
      ? 'to continue, repeat the command with --resume'
      : 'this run cannot be resumed; to be resumable, a run needs --out FILE'
    say(`interrupted after ${tally.rows} rows; ${next}`)
    return EXIT.interrupted
  }
  await output.finish()
  const summary = summarize(tally, model, seconds, loadSeconds)
  const text = `${JSON.stringify(snakeKeys(summary), null, 2)}\n`
  if (flags.summary === '-') await stdoutWrite()(text)
  else if (flags.summary !== undefined) await writeFileAtomic(flags.summary, text)
  if (!flags.quiet) say(describeSummary(summary))
  return EXIT.done
}

/** No output may be an input or another output, under whatever name. */
async function checkPlaces({
  model,
  adapter,
  data,
  reference,
  head,
  template,
  out,
  summary,
  cacheDir,
}: ScoreFlags): Promise<void> {
  await checkOutputs(
    [
      { flag: '--out', path: out },
      { flag: '--summary', path: summary },
      { flag: '--cache-dir', path: cacheDir, made: true },
    ],
    [
      { flag: '--data', path: data },
      { flag: '--model', path: model },
      { flag: '--adapter', path: adapter },
      { flag: '--reference', path: reference },
      { flag: '--head', path: head },
      { flag: '--template', path: template },
    ],
  )
}

/** Scores all rows. @returns the time in seconds */
async function scoreAll(
  flags: ScoreFlags,
  model: RewardModel,
  tally: ScoreTally,
  output: ScoreOutput,
  drain: AbortSignal,
): Promise<number> {
  const source = readJsonl(flags.data, { skipRows: tally.rows, rows: flags.rows, limit: flags.limit })
  const size = await sizeOf(flags.data)
  using _ = new Progress(
    () => ({ rows: tally.rows, tokens: tally.tokens, ...share(source, size, flags.limit) }),
    flags.quiet === true,
  )
  const stream = model.scoreStream(output.watch(source), {
    onError: flags.onError,
    tokenLogprobs: flags.logprobs === true,
    labelRewards: flags.labels === true,
    firstOrdinal: tally.responses,
    drain,
    batchTokens: flags.batchTokens,
  })
  const start = performance.now()
  for await (const row of stream) {
    tally.add(row)
    await output.line(formatRow(row, flags.logprobs === true))
  }
  await output.flush()
  return (performance.now() - start) / 1000
}

function checkFlags({ data, out, kind, resume, logprobs, labels, force }: ScoreFlags): void {
  if (resume && out === '-') throw new UsageError('--resume needs --out FILE: standard output cannot be continued')
  if (resume && data === '-') throw new UsageError('--resume needs --data FILE: standard input cannot be read again')
  if (resume && force) throw new UsageError('--resume continues the output and --force overwrites it; give one of them')
  if (labels && kind !== 'explicit') throw new UsageError(`--labels is for --kind explicit; kind ${kind} has no head`)
  if (logprobs && kind !== 'implicit')
    throw new UsageError(`--logprobs is for --kind implicit; a reward of kind ${kind} has none`)
}

const warn = (message: string) => say(`warning: ${message}`)

/** Flags have the names of the model's options. The model ignores all other flags. */
function modelOptions(flags: ScoreFlags, now: Date, signal: AbortSignal): RewardModelOptions {
  return { ...flags, now, signal, onWarning: warn }
}

/**
 * --on-error, --limit, --batch-tokens and the cache decide no byte of a line that is written. Of the data, every row is compared.
 * The weights' digests are remembered in the cache folder, so that only a file that has changed is read for them.
 */
async function identify(flags: ScoreFlags, model: RewardModel, signal: AbortSignal): Promise<RunIdentity> {
  const { checkpoint, referenceCheckpoint } = model
  const fingerprint = (one: Checkpoint) =>
    modelFingerprint(one, flags.cache ? (flags.cacheDir ?? defaultCacheDir()) : undefined, signal)
  return {
    version: VERSION,
    numerics: NUMERICS_VERSION,
    model: await fingerprint(checkpoint),
    reference: referenceCheckpoint === undefined ? null : await fingerprint(referenceCheckpoint),
    head: model.headDigest ?? null,
    rows: flags.rows ?? 'auto',
    template: model.textFingerprint,
    kind: model.kind,
    beta: model.beta,
    pool: model.pool,
    border: model.border ?? null,
    'head-at': model.headAt ?? null,
    'pad-token-id': model.padTokenId ?? null,
    'on-long': model.onLong,
    steps: flags.steps === undefined ? null : String(flags.steps),
    'steps-aggregate': flags.steps === undefined ? null : (flags.stepsAggregate ?? 'min'),
    'good-token': flags.goodToken ?? null,
    'bad-token': flags.badToken ?? null,
    labels: flags.labels === true,
    logprobs: flags.logprobs === true,
    device: model.device,
    dtype: model.dtype,
    kernels: model.kernels,
  }
}

/** Adds to an error the file of a bad row, and how to continue the run. */
function withPlace(error: unknown, flags: ScoreFlags, resumable: boolean): unknown {
  if (!(error instanceof ImplexError)) return error
  const place =
    error.line === undefined || error.path !== undefined
      ? ''
      : `${flags.data === '-' ? 'standard input' : flags.data}: `
  const skip = error.line !== undefined && flags.onError === 'stop' ? ' --on-error skip' : ''
  const next = resumable ? `\nThe output so far is kept. To continue, repeat the command with --resume${skip}` : ''
  return new ImplexError(error.code, `${place}${error.message}${next}`, {
    cause: error,
    line: error.line,
  })
}

async function sizeOf(path: string): Promise<number | undefined> {
  if (path === '-') return undefined
  return stat(path).then(
    (stats) => (stats.isFile() ? stats.size : undefined),
    () => undefined,
  )
}

/** The share of the file that was read. Unknown with a limit, because then the file's size says nothing. */
function share(source: JsonlSource, size: number | undefined, limit: number | undefined): { share?: number } {
  return size === undefined || size === 0 || limit !== undefined ? {} : { share: source.bytesRead / size }
}
