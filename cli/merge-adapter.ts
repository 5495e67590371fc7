/**
 * `implex merge-adapter`: writes a base model with a LoRA adapter merged into it as a checkpoint of its own.
 */
import type { Command } from 'commander'
import { baseOfAdapter } from '../lib/checkpoint/adapter/adapter.js'
import { mergeAdapter } from '../lib/models/merge-adapter.js'
import { EXIT, say } from './exit.js'
import { Interrupt } from './interrupt.js'
import { checkOutputs } from './outputs.js'

interface MergeFlags {
  model?: string
  adapter: string
  out: string
  quiet?: boolean
}

export function addMergeAdapter(program: Command, finish: (status: number) => void): void {
  program
    .command('merge-adapter')
    .description('Merge a LoRA adapter into its base model and write the result.')
    .usage('--adapter DIR --out DIR [options]')
    .option('--model <dir>', 'base model (default: the folder that the adapter names)')
    .requiredOption('--adapter <dir>', 'adapter folder as peft saves it')
    .requiredOption('--out <dir>', 'new checkpoint folder')
    .option('--quiet', 'print only warnings and errors on stderr')
    .helpOption('-h, --help', 'print this help')
    .addHelpText(
      'after',
      `
Each weight becomes W + s B A in 32 bits, rounded once to the type in which the
base stores it. Head, tokenizer, template and padding token of the adapter are
written where it has them.

  implex merge-adapter --model llama --adapter runs/lora --out llama-merged
`,
    )
    .action(async (flags: MergeFlags) => finish(await run(flags)))
}

async function run({ adapter, out, quiet, ...flags }: MergeFlags): Promise<number> {
  const model = flags.model ?? (await baseOfAdapter(adapter))
  await checkOutputs(
    [{ flag: '--out', path: out }],
    [
      { flag: '--model', path: model },
      { flag: '--adapter', path: adapter },
    ],
  )
  using interrupt = new Interrupt('stopping')
  const { signal } = interrupt
  const { changed, tensors, left, notes } = await mergeAdapter({ model, adapter, out, signal })
  for (const note of notes) say(`warning: ${note}`)
  if (quiet) return EXIT.done
  if (left.length > 0) say(`left out: ${left.join(', ')}, which a classifier does not have`)
  say(`wrote ${out}: ${tensors} tensors, ${changed} of them from the adapter or changed by it`)
  return EXIT.done
}
