/**
 * `implex generate`: prompts continued by a language model, one JSON line for each sequence.
 */
import { type FileHandle, open } from 'node:fs/promises'
import type { Command } from 'commander'
import { fileError } from '../lib/core/files.js'
import { readJsonl } from '../lib/data/jsonl.js'
import { parsePromptText } from '../lib/data/parse-row.js'
import type { Prompt } from '../lib/data/rows.js'
import { ROWS_OPTIONS, type RowsOption } from '../lib/data/shapes/names.js'
import { DEVICES, DTYPES, type DeviceName, type DType } from '../lib/native/device.js'
import { LanguageModel } from '../lib/models/language-model.js'
import { EXIT, UsageError } from './exit.js'
import { Interrupt } from './interrupt.js'
import { fileWrite, LineWriter, stdoutWrite } from './line-writer.js'
import { choice, integer, positiveNumber } from './options.js'
import { checkOutputs, refuseOverwriting } from './outputs.js'

interface GenerateFlags {
  model: string
  prompt?: string[]
  data?: string
  rows?: RowsOption
  out: string
  force?: boolean
  maxNewTokens?: number
  temperature?: number
  topP?: number
  topK?: number
  seed?: number
  samples?: number
  batchSize?: number
  template?: string
  device?: 'auto' | DeviceName
  dtype?: DType
}

export function addGenerate(program: Command, finish: (status: number) => void): void {
  program
    .command('generate')
    .description('Continue prompts with a language model.')
    .usage('--model DIR (--prompt TEXT... | --data FILE) [options]')
    .requiredOption('--model <dir>', 'checkpoint folder in Hugging Face format')
    .option('--prompt <text...>', 'prompts to continue')
    .option('--data <file>', 'JSON Lines with a "prompt" to continue; - reads standard input')
    .addOption(choice('--rows <shape>', 'row shape, see docs/formats.md (default: auto)', ROWS_OPTIONS))
    .option('--out <file>', 'file for the output; - writes to standard output', '-')
    .option('--force', 'overwrite an existing --out')
    .option('--max-new-tokens <n>', 'maximum number of tokens per sequence (default: 256)', integer(1))
    .option(
      '--temperature <number>',
      'sampling temperature; 0 always takes the most probable token (default: 1)',
      notNegative,
    )
    .option(
      '--top-p <number>',
      'sample from the most probable tokens whose total probability reaches this (default: 1)',
      positiveNumber,
    )
    .option('--top-k <n>', 'sample from this many most probable tokens; 0 samples from all (default: 0)', integer(0))
    .option('--seed <n>', 'seed of the sampling (default: 0)', integer(0))
    .option('--samples <n>', 'sequences per prompt (default: 1)', integer(1))
    .option('--batch-size <n>', 'sequences decoded together (default: 64)', integer(1))
    .option('--template <name>', 'chat template: auto, default, none or a .jinja file (default: auto)')
    .addOption(choice('--device <device>', 'auto, cpu or cuda (default: auto)', DEVICES))
    .addOption(choice('--dtype <type>', 'type of the weights in memory: f32 or bf16 (default: f32)', DTYPES))
    .helpOption('-h, --help', 'print this help')
    .addHelpText(
      'after',
      `
The same seed gives the same text, whatever else is in the batch.

  implex generate --model DIR --template none --prompt "Once upon a time"
`,
    )
    .action(async (flags: GenerateFlags) => finish(await run(flags)))
}

async function run(flags: GenerateFlags): Promise<number> {
  if ((flags.prompt === undefined) === (flags.data === undefined)) {
    throw new UsageError('give either --prompt or --data')
  }
  await checkOutputs(
    [{ flag: '--out', path: flags.out }],
    [
      { flag: '--data', path: flags.data },
      { flag: '--model', path: flags.model },
      { flag: '--template', path: flags.template },
    ],
  )
  const toFile = flags.out !== '-'
  if (toFile) await refuseOverwriting(flags.out, flags.force, 'choose another --out')
  using interrupt = new Interrupt('stopping')
  const { signal } = interrupt
  const { model: path, template, device, dtype, data, rows, out, prompt, force: _, ...rest } = flags
  const prompts = data === undefined ? prompt! : await readPrompts(data, rows)
  using model = await LanguageModel.open(path, { ...defined({ template, device, dtype }), signal })
  const handle = toFile ? await openOut(out) : undefined
  try {
    const writer = new LineWriter(handle === undefined ? stdoutWrite() : fileWrite(handle, out))
    let index = 0
    for await (const samples of model.stream(prompts, { ...defined(rest), signal })) {
      for (const [sample, { text, ids, logprobs, finish }] of samples.entries()) {
        const logprob = logprobs.reduce((sum, one) => sum + one, 0)
        await writer.line(JSON.stringify({ index, sample, text, tokens: ids.length, logprob, finish }))
      }
      index++
    }
    await writer.flush()
  } finally {
    await handle?.close()
  }
  return EXIT.done
}

async function readPrompts(file: string, shape: RowsOption | undefined): Promise<Prompt[]> {
  const prompts: Prompt[] = []
  for await (const rows of readJsonl(file).chunks()) {
    for (const row of rows) {
      if (row.error !== undefined) throw row.error
      prompts.push(parsePromptText(row.text ?? '', row.index, row.line, shape))
    }
  }
  return prompts
}

async function openOut(path: string): Promise<FileHandle> {
  try {
    return await open(path, 'w')
  } catch (error) {
    throw fileError(path, 'write', error)
  }
}

function notNegative(text: string): number {
  return text.trim() !== '' && Number(text) === 0 ? 0 : positiveNumber(text)
}

/** Removes options that were not given, because an option with the value undefined is not the same as an absent one. */
function defined<T extends object>(values: T): { [K in keyof T]: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined)) as {
    [K in keyof T]: Exclude<T[K], undefined>
  }
}
