/**
 * `implex bench`: measures how fast the engine is on this machine.
 */
import type { Command } from 'commander'
import { SIZES, TINY } from '../bench/suites/checkpoint.js'
import { kernelSuite, kernelTable } from '../bench/suites/kernels.js'
import type { ModelSuiteOptions } from '../bench/suites/models.js'
import { type BenchCase, beginResult, failed, writeResult } from '../bench/suites/result.js'
import { modelTable, scoreSuite } from '../bench/suites/score.js'
import { trainSuite } from '../bench/suites/train.js'
import type { DeviceName, DType } from '../lib/native/device.js'
import { createCancel } from '../lib/native/handles.js'
import { ImplexError } from '../lib/core/errors.js'
import { EXIT, say, UsageError } from './exit.js'
import { Interrupt } from './interrupt.js'
import { choice, integer } from './options.js'

const SUITES = ['kernels', 'score', 'train'] as const
type Suite = (typeof SUITES)[number]

interface BenchFlags {
  device: DeviceName
  dtype?: DType
  data?: string
  pairs?: number
  samples?: number
  size?: keyof typeof SIZES
  folder?: string
  json?: string
  quick?: boolean
}

export function addBench(program: Command, finish: (status: number) => void): void {
  program
    .command('bench')
    .description('Measure how fast kernels, scoring and training run on this machine.')
    .usage('[kernels|score|train] [options]')
    .argument('[what]', 'which of the three to run (default: all)')
    .addOption(choice('--device <device>', 'cpu or cuda', ['cpu', 'cuda']).default('cpu'))
    .addOption(choice('--dtype <type>', 'f32 or bf16 (default: both; train: f32)', ['f32', 'bf16']))
    .option('--data <file>', 'score, train: preference pairs (default: made up)')
    .option('--pairs <n>', 'score, train: pairs per case (default: 32)', integer(1, 100_000))
    .option('--samples <n>', 'score, train: timed repetitions (default: 7)', integer(1, 1000))
    .addOption(choice('--size <size>', 'score, train: 22M or 100M (default: both)', Object.keys(SIZES)))
    .option('--folder <dir>', 'folder for the generated checkpoints (default: the cache)')
    .option('--json <file>', 'write samples, machine and versions as JSON to this file')
    .option('--quick', 'run a little of everything; shows that it works, not how fast')
    .helpOption('-h, --help', 'print this help')
    .addHelpText(
      'after',
      `
"of bound" is the speed as a fraction of what multiply-adds in registers (fma)
or copying (mem) allow on this machine. Both are measured first. tokens/s counts
each prompt once per response, as if nothing were shared. To compare two JSON
files, run: npm run bench:compare A.json B.json
`,
    )
    .action(async (what: string | undefined, flags: BenchFlags) => finish(await bench(what, flags)))
}

async function bench(what: string | undefined, flags: BenchFlags): Promise<number> {
  if (what !== undefined && !(SUITES as readonly string[]).includes(what)) {
    throw new UsageError(`there is no benchmark ${JSON.stringify(what)}; choose one of ${SUITES.join(', ')}`)
  }
  const suites = what === undefined ? SUITES : [what as Suite]
  using interrupt = new Interrupt('stopping after the current case')
  const finishResult = await beginResult(what ?? 'all')
  const cases: BenchCase[] = []
  try {
    for (const suite of suites) {
      const found = await run(suite, flags, interrupt.signal)
      cases.push(...found)
      process.stdout.write(`${suite === 'kernels' ? kernelTable(found) : modelTable(found)}\n`)
    }
  } catch (error) {
    if (!interrupt.signal.aborted) throw error
    throw new ImplexError('ERR_ABORTED', 'interrupted', { cause: error })
  }
  if (flags.json !== undefined) await writeResult(flags.json, finishResult(cases))
  const wrong = cases.filter(failed)
  for (const { name, check } of wrong) {
    say(`${name}: relative error ${check!.error} against ${check!.against}, above the limit ${check!.limit}`)
  }
  return wrong.length === 0 ? EXIT.done : EXIT.failed
}

function run(suite: Suite, flags: BenchFlags, signal: AbortSignal): Promise<BenchCase[]> {
  const { device, dtype, data, folder, quick = false } = flags
  const progress = { onCase: ({ name }: BenchCase) => progressLine(`${suite}: ${name}`) }
  if (suite === 'kernels') {
    const cancel = createCancel()
    signal.addEventListener('abort', () => cancel.cancel(), { once: true })
    return kernelSuite({ device, dtypes: dtype === undefined ? ['f32', 'bf16'] : [dtype], quick, cancel, ...progress })
  }
  const options: ModelSuiteOptions = {
    device,
    dtypes: dtype === undefined ? (suite === 'train' || quick ? ['f32'] : ['f32', 'bf16']) : [dtype],
    pairs: flags.pairs ?? (quick ? 2 : 32),
    samples: flags.samples ?? (quick ? 1 : 7),
    sizes: flags.size === undefined ? (quick ? [TINY] : Object.values(SIZES)) : [SIZES[flags.size]],
    quick,
    signal,
    ...progress,
    ...(data === undefined ? {} : { data }),
    ...(folder === undefined ? {} : { folder }),
  }
  return suite === 'score' ? scoreSuite(options) : trainSuite(options)
}

/** Shows on a terminal which case has just finished. The tables come at the end. */
function progressLine(text: string): void {
  if (process.stderr.isTTY) process.stderr.write(`\r\x1b[K${text.slice(0, 79)}`)
}
