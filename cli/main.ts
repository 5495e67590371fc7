#!/usr/bin/env node
/**
 * The `implex` command. Each subcommand has its own file; this one knows only their names.
 */
import { Command } from 'commander'
import { addBench } from './bench.js'
import { addDoctor } from './doctor.js'
import { EXIT, report } from './exit.js'
import { addEval } from './eval.js'
import { addExperiment } from './experiment.js'
import { addReport } from './report.js'
import { addGenerate } from './generate.js'
import { addMergeAdapter } from './merge-adapter.js'
import { addScore } from './score.js'
import { addTrain } from './train.js'
import { VERSION } from './version.js'

const width = () => Math.min(process.stdout.columns ?? 80, 80)
let status: number = EXIT.done

const program = new Command('implex')
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
const finish = (result: number) => {
  status = result
}
addTrain(program, finish)
addEval(program, finish)
addScore(program, finish)
addExperiment(program, finish)
addReport(program, finish)
addMergeAdapter(program, finish)
addGenerate(program, finish)
addBench(program, finish)
addDoctor(program, finish)

// Diagnostics never end the work: their reader may have gone (`2>&1 | head`).
process.stderr.on('error', () => {})
try {
  await program.parseAsync()
} catch (error) {
  status = report(error)
}
// Exits explicitly: a standard input that nobody reads any more would keep the event loop alive.
process.exit(status)
