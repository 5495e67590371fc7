/**
 * The `implex` command as a function of its arguments. Each subcommand has its own file; this one knows only their names, and loads only
 * the one that is asked for.
 */
import { Command } from 'commander'
import { EXIT, report } from './exit.js'
import { VERSION } from './version.js'

/** Adds a subcommand to the program; `finish` takes its exit status. */
type Add = (program: Command, finish: (status: number) => void) => void

/** In the order in which the help lists them. */
const SUBCOMMANDS: Record<string, () => Promise<Add>> = {
  train: async () => (await import('./train.js')).addTrain,
  eval: async () => (await import('./eval.js')).addEval,
  score: async () => (await import('./score.js')).addScore,
  experiment: async () => (await import('./experiment.js')).addExperiment,
  report: async () => (await import('./report.js')).addReport,
  'merge-adapter': async () => (await import('./merge-adapter.js')).addMergeAdapter,
  generate: async () => (await import('./generate.js')).addGenerate,
  bench: async () => (await import('./bench.js')).addBench,
  doctor: async () => (await import('./doctor.js')).addDoctor,
}

const width = () => Math.min(process.stdout.columns ?? 80, 80)

/** Runs a command line, given without the program's name, to its end. @returns the exit status; what went wrong is told on stderr */
export async function runCommand(args: readonly string[]): Promise<number> {
  let status: number = EXIT.done
  const finish = (result: number) => {
    status = result
  }
  try {
    const program = commandLine()
    const asked = args[0] ?? ''
    const needed = Object.hasOwn(SUBCOMMANDS, asked) ? [asked] : Object.keys(SUBCOMMANDS)
    for (const name of needed) (await SUBCOMMANDS[name]!())(program, finish)
    await program.parseAsync(args, { from: 'user' })
  } catch (error) {
    status = report(error)
  }
  return status
}

function commandLine(): Command {
  return new Command('implex')
    .description(
      'Train, evaluate and score reward models built from language models, with explicit, implicit and generative rewards.',
    )
    .version(VERSION, '-v, --version', 'print the version')
    .helpOption('-h, --help', 'print this help')
    .helpCommand(false)
    .configureOutput({ getOutHelpWidth: width, getErrHelpWidth: width })
    .showHelpAfterError('See implex --help.')
    .exitOverride()
    .addHelpText('after', '\nExit status: 0 done, 1 failed, 2 wrong usage, 130 interrupted.\n')
}
