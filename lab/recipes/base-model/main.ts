/**
 * `npm run make:base-model -- [--quick] [--work FOLDER] [--out FOLDER]`
 */
import { join } from 'node:path'
import { Command } from 'commander'
import type { TrainStep } from '../../../lib/train/options.js'
import { makeBaseModel } from './make.js'
import { QUICK, RECIPE } from './settings.js'

const ROOT = join(import.meta.dirname, '..', '..', '..', '..')

const program = new Command('make:base-model')
  .description(
    'Generate the corpus, train the tokenizer and the base model, and write the checkpoint. An interrupted run continues.',
  )
  .option('--quick', 'make a model that has learned little, in a minute; leaves models/base alone')
  .option(
    '--work <folder>',
    'folder for the corpus and the training run (default: build-base-model, with --quick build-base-model-quick)',
  )
  .option('--out <folder>', 'folder for the checkpoint (default: models/base, with --quick WORK/model)')
  .parse()
const { quick = false, ...given } = program.opts<{ quick?: boolean; work?: string; out?: string }>()
const work = given.work ?? join(ROOT, quick ? 'build-base-model-quick' : 'build-base-model')
const out = given.out ?? (quick ? join(work, 'model') : join(ROOT, 'models', 'base'))

const onStep = ({ step, steps, loss, tokens, seconds, learningRate }: TrainStep) => {
  if (step % 20 !== 0 && step !== steps) return
  const rate = Math.round(tokens / seconds)
  console.error(
    `step ${step}/${steps}  loss ${loss.toFixed(2)}  learning rate ${learningRate.toExponential(2)}  ${rate} tokens/s`,
  )
}
const drain = new AbortController()
process.once('SIGINT', () => {
  console.error('finishing the step, then writing a checkpoint; press Ctrl-C again to stop at once')
  drain.abort()
})
const onStage = (stage: string) => console.error(stage)
const done = await makeBaseModel(quick ? QUICK : RECIPE, { work, out, drain: drain.signal, onStage, onStep })
console.log(done ? out : 'interrupted; to continue, give the same command again')
process.exitCode = done ? 0 : 130
