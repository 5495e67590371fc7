/**
 * `implex eval`: evaluates a reward model on named sets of preference pairs and prints a table; also writes JSON.
 */
import { POOLS } from '../lib/data/rewards.js'
import { ON_ERROR } from '../lib/data/score-rows.js'
import { mkdirSync } from 'node:fs'
import { type FileHandle, open, rename, rm, stat } from 'node:fs/promises'
import { dirname, join, resolve } from 'node:path'
import type { Command } from 'commander'
import { fileError } from '../lib/core/files.js'
import { ON_LONG, REWARD_KINDS, type OnLong, type RewardKind } from '../lib/data/encode.js'
import type { Border } from '../lib/checkpoint/trained-with.js'
import { DEVICES, DTYPES, type DeviceName, type DType } from '../lib/native/device.js'
import { ROWS_OPTIONS, type RowsOption } from '../lib/data/shapes/names.js'
import { evaluate, type Evaluation } from '../lib/evaluate/evaluate.js'
import { STATISTICS } from '../lib/evaluate/statistics.js'
import { RewardModel } from '../lib/models/reward-model.js'
import { flushFolder, temporaryName, writeFileAtomic } from '../lib/core/atomic.js'
import { snakeKeys } from '../lib/core/keys.js'
import { EXIT, say } from './exit.js'
import { evaluationTable } from './eval-table.js'
import { Interrupt } from './interrupt.js'
import { fileWrite, LineWriter, stdoutWrite } from './line-writer.js'
import {
  borderOption,
  choice,
  collectSets,
  type HeadFlags,
  headOptions,
  integer,
  modelOf,
  positiveNumber,
  type StepFlags,
  stepOptions,
} from './options.js'
import { checkOutputs } from './outputs.js'
import { Progress } from './progress.js'
import { formatRow } from '../lib/data/row-lines.js'
import { VERSION } from './version.js'

interface EvalFlags extends HeadFlags, StepFlags {
  model?: string
  adapter?: string
  kind: RewardKind
  data: Record<string, string>
  rows?: RowsOption
  reference?: string
  beta?: number
  pool?: 'last' | 'mean'
  border?: Border
  template?: string
  out?: string
  rewards?: string
  resamples?: number
  seed?: number
  device?: 'auto' | DeviceName
  dtype?: DType
  batchTokens?: number
  encodeThreads?: number
  onLong?: OnLong
  onError: 'stop' | 'skip'
  cacheDir?: string
  cache: boolean
  quiet?: boolean
}

export function addEval(program: Command, finish: (status: number) => void): void {
  const command = program.command('eval')
  command
    .description('Evaluate a reward model on named sets of preference pairs.')
    .usage('--model DIR --kind KIND --data NAME=FILE... [options]')
    .option('--model <dir>', 'checkpoint folder in Hugging Face format')
    .option('--adapter <dir>', 'LoRA adapter of the model; without --model, also of the base that it names')
    .addOption(choice('--kind <kind>', 'explicit, implicit or generative', REWARD_KINDS).makeOptionMandatory())
    .requiredOption('--data <name=file...>', 'named sets of pairs as JSON Lines', collectSets)
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
    .option(
      '--out <path>',
      'write the results as JSON to this file, or with - to standard output; in a folder, also write every reward',
    )
    .option('--rewards <dir>', 'write the rewards of each set to NAME.jsonl in this folder')
    .option('--resamples <n>', 'number of bootstrap samples for the intervals (default: 1000)', integer(0, 1_000_000))
    .option('--seed <n>', 'seed of the bootstrap (default: 0)', integer(0))
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
        'at a bad row, end the evaluation (stop) or leave the row out (skip)',
        ON_ERROR,
      ).default('stop'),
    )
    .option('--cache-dir <dir>', 'cache folder for reference log-probabilities (default: ~/.cache/implex)')
    .option('--no-cache', 'do not cache reference log-probabilities')
    .option('--quiet', 'print no table, and only warnings and errors on stderr')
    .helpOption('-h, --help', 'print this help')
    .addHelpText(
      'after',
      `
A seeded bootstrap over the pairs gives each number a 95% interval. The table
shows the interval of the accuracy, the JSON all of them.

  implex eval --model runs/a/model --kind explicit --data test=test.jsonl \\
              paraphrase=paraphrase.jsonl --out runs/a/eval/
`,
    )
    .action(async (flags: EvalFlags) => finish(await run(flags)))
}

async function run(flags: EvalFlags): Promise<number> {
  using interrupt = new Interrupt('stopping')
  const path = await modelOf(flags)
  await checkOutputs(
    [
      { flag: '--out', path: flags.out, made: true },
      { flag: '--rewards', path: flags.rewards, made: true },
      { flag: '--cache-dir', path: flags.cacheDir, made: true },
    ],
    [
      { flag: '--model', path },
      { flag: '--adapter', path: flags.adapter },
      { flag: '--reference', path: flags.reference },
      { flag: '--head', path: flags.head },
      { flag: '--template', path: flags.template },
      ...Object.entries(flags.data).map(([name, path]) => ({ flag: `--data ${name}`, path })),
    ],
  )
  const places = await placesOf(flags)
  const { kind, reference, beta, pool, border, device, dtype, template, onLong } = flags
  const { cache, cacheDir, encodeThreads } = flags
  using model = await RewardModel.open(path, {
    kind,
    adapter: flags.adapter,
    reference,
    head: flags.head,
    headSpec: flags.headSpec,
    headAt: flags.headAt,
    label: flags.label,
    labelWeights: flags.labelWeights,
    steps: flags.steps,
    stepsAggregate: flags.stepsAggregate,
    goodToken: flags.goodToken,
    badToken: flags.badToken,
    beta,
    pool,
    border,
    device,
    dtype,
    template,
    onLong,
    cache,
    cacheDir,
    encodeThreads,
    signal: interrupt.signal,
    onWarning: (message) => say(`warning: ${message}`),
  })
  const tally = { rows: 0, tokens: 0 }
  const writers = new Map<string, RewardFile>()
  let report: Record<string, Evaluation>
  try {
    using _ = new Progress(() => tally, flags.quiet === true)
    report = await evaluate(model, flags.data, {
      onError: flags.onError,
      ...(flags.rows === undefined ? {} : { rows: flags.rows }),
      signal: interrupt.signal,
      resamples: flags.resamples,
      seed: flags.seed,
      batchTokens: flags.batchTokens,
      onRow: async (name, row) => {
        tally.rows++
        for (const tokens of row.tokens) tally.tokens += row.promptTokens + tokens
        if (places.rewards === undefined) return
        const file = writers.get(name) ?? (await RewardFile.create(join(places.rewards, `${name}.jsonl`)))
        writers.set(name, file)
        await file.writer.line(formatRow(row, false))
      },
    })
    for (const file of writers.values()) await file.finish()
  } finally {
    for (const file of writers.values()) await file.discard()
  }
  const json = snakeKeys({
    version: VERSION,
    kind: model.kind,
    model: model.path,
    adapter: model.adapter ?? null,
    reference: model.referenceCheckpoint?.path ?? null,
    beta: kind === 'implicit' ? model.beta : null,
    pool: kind === 'explicit' ? model.pool : null,
    template: model.templateSource,
    border: model.border ?? null,
    headAt: model.headAt ?? null,
    padTokenId: model.padTokenId ?? null,
    device: model.device,
    fallbackReason: model.fallbackReason ?? null,
    dtype: model.dtype,
    kernels: model.kernels,
    resamples: flags.resamples ?? 1000,
    seed: flags.seed ?? 0,
    sets: Object.fromEntries(Object.entries(report).map(([name, one]) => [name, setJson(one, flags.data[name]!)])),
  })
  const text = `${JSON.stringify(json, null, 2)}\n`
  // Standard output holds one of the two, so that a program can read it.
  if (places.json === '-') await stdoutWrite()(text)
  else if (places.json !== undefined) await writeFileAtomic(places.json, text)
  if (!flags.quiet && places.json !== '-') await stdoutWrite()(`${evaluationTable(report)}\n`)
  return EXIT.done
}

/** JSON has no NaN, so NaN becomes null. */
function setJson({ estimates, ...counts }: Evaluation, file: string): Record<string, unknown> {
  const statistics = Object.fromEntries(STATISTICS.map((name) => [name, estimates[name]]))
  return { file: resolve(file), ...snakeKeys(counts), ...snakeKeys(statistics) }
}

/**
 * Where results go. A path is a folder if it ends in a slash or exists as a folder. Folders are made before any work, so that an error shows
 * early.
 */
async function placesOf({ out, rewards }: EvalFlags): Promise<{ json?: string; rewards?: string }> {
  const folder = out !== undefined && (/[\\/]$/.test(out) || (await isFolder(out)))
  const rewardsFolder = rewards ?? (folder ? out : undefined)
  for (const path of [folder ? out : undefined, rewardsFolder]) {
    if (path === undefined) continue
    try {
      mkdirSync(path, { recursive: true })
    } catch (error) {
      throw fileError(path, 'make the folder', error)
    }
  }
  return {
    json: folder && out !== undefined ? join(out, 'evaluation.json') : out,
    rewards: rewardsFolder,
  }
}

async function isFolder(path: string): Promise<boolean> {
  return stat(path).then(
    (stats) => stats.isDirectory(),
    () => false,
  )
}

/** A set's rewards, written beside the file that they replace in the end. */
class RewardFile {
  static async create(path: string): Promise<RewardFile> {
    const temporary = temporaryName(path)
    try {
      return new RewardFile(await open(temporary, 'wx'), temporary, path)
    } catch (error) {
      throw fileError(path, 'write', error)
    }
  }

  readonly writer: LineWriter
  readonly #handle: FileHandle
  readonly #temporary: string
  readonly #path: string
  #finished = false

  private constructor(handle: FileHandle, temporary: string, path: string) {
    this.#handle = handle
    this.#temporary = temporary
    this.#path = path
    this.writer = new LineWriter(fileWrite(handle, path))
  }

  async finish(): Promise<void> {
    await this.writer.flush()
    try {
      await this.#handle.sync()
      await rename(this.#temporary, this.#path)
      await flushFolder(dirname(this.#path))
    } catch (error) {
      throw fileError(this.#path, 'write', error)
    }
    this.#finished = true
  }

  /** Closes it; what is not finished goes away. */
  async discard(): Promise<void> {
    await this.#handle.close().catch(() => {})
    if (!this.#finished) await rm(this.#temporary, { force: true }).catch(() => {})
  }
}
