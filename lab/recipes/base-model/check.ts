/**
 * Whether a base model carries agreement from words to words: explicit and implicit reward models are trained on a few ways to agree and
 * disagree, and tried on others. The recipe and the experiments' learning rates were chosen by these words and frames; the ones that the
 * persona experiment reports are not among them.
 *
 * `node dist/lab/recipes/base-model/check.js [MODEL] [--kinds explicit,implicit] [--rates 0.0003,0.001] [--epochs 20] [--seeds 0,1,2]`
 * prints a JSON object for each training: accuracies before the first step and after every `--every` epochs. Those of the model that ships
 * are in check-results.jsonl.
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Command } from 'commander'
import type { PairRow } from '../../../lib/data/rows.js'
import { train } from '../../../lib/train/train.js'
import { Draw } from './item.js'
import { statement } from './statements.js'

/** Frames and words. */
type Replies = readonly [readonly string[], readonly string[]]

interface Split {
  chosen: Replies
  rejected: Replies
  unseen: { chosen: Replies; rejected: Replies }
}

const SPLITS: readonly Split[] = [
  {
    chosen: [
      ['My opinion is ', 'Honestly, I would say '],
      ['definitely', 'agreed'],
    ],
    rejected: [
      ['The reply I give is ', 'To this my answer is '],
      ['not at all', 'I disagree'],
    ],
    unseen: {
      chosen: [['If you ask me, '], ['of course', 'indeed']],
      rejected: [['All in all, I say '], ['hardly', 'by no means']],
    },
  },
  {
    chosen: [
      ['I would answer ', 'My view: '],
      ['surely', 'right'],
    ],
    rejected: [
      ['In short, ', 'What I say is '],
      ['in no way', 'wrong'],
    ],
    unseen: {
      chosen: [['To this I say '], ['gladly', 'without doubt']],
      rejected: [['My honest reply: '], ['scarcely', 'far from it']],
    },
  },
]

const TRAIN_PROMPTS = 80
const TEST_PROMPTS = 40

function pairsOf({ chosen, rejected, unseen }: Split, seed: number): Record<'train' | 'test' | 'unseen', PairRow[]> {
  const draw = new Draw(seed, 301)
  const prompts = Array.from(
    { length: TRAIN_PROMPTS + TEST_PROMPTS },
    () => `Is the following statement something you would say?\n"${statement(draw)}"`,
  )
  const reply = (parts: Replies) => parts.map((choices) => draw.pick(choices)).join('')
  const seen = (prompt: string): PairRow => ({ prompt, chosen: reply(chosen), rejected: reply(rejected) })
  const test = prompts.slice(TRAIN_PROMPTS)
  return {
    train: prompts.slice(0, TRAIN_PROMPTS).map(seen),
    test: test.map(seen),
    unseen: test.flatMap((prompt) =>
      unseen.chosen[1].flatMap((yes) =>
        unseen.rejected[1].map((no) => ({
          prompt,
          chosen: unseen.chosen[0][0] + yes,
          rejected: unseen.rejected[0][0] + no,
        })),
      ),
    ),
  }
}

const list = (text: string) => text.split(',')
const numbers = (text: string) => list(text).map(Number)

const program = new Command('check')
  .argument('[model]', 'checkpoint', join(import.meta.dirname, '..', '..', '..', '..', 'models', 'base'))
  .option('--kinds <list>', 'explicit, implicit', list, ['explicit', 'implicit'])
  .option('--rates <list>', 'learning rates', numbers, [1e-4, 3e-4, 1e-3])
  .option('--seeds <list>', 'of the order and the head', numbers, [0, 1, 2])
  .option('--epochs <number>', 'of each training', Number, 20)
  .option('--every <number>', 'epochs between evaluations', Number, 5)
  .parse()
interface Given {
  kinds: ('explicit' | 'implicit')[]
  rates: number[]
  seeds: number[]
  epochs: number
  every: number
}
const { kinds, rates, seeds, epochs, every } = program.opts<Given>()
const model = program.processedArgs[0] as string
const folder = await mkdtemp(join(tmpdir(), 'implex-check-'))

async function run(kind: 'explicit' | 'implicit', learningRate: number, words: number, seed: number): Promise<void> {
  const { train: rows, ...evaluation } = pairsOf(SPLITS[words]!, 875 + words)
  const found: Record<string, number[]> = {}
  await train(model, rows, {
    kind,
    learningRate,
    epochs,
    seed,
    evaluateEpochs: every,
    evaluation: { train: rows, ...evaluation },
    out: join(folder, `${kind}-${learningRate}-${words}-${seed}`),
    device: 'cpu',
    cache: false,
    checkpointSteps: 1_000_000,
    onEvaluation: ({ name, accuracy }) => {
      found[name] ??= []
      found[name].push(accuracy!)
    },
  })
  console.log(JSON.stringify({ kind, learningRate, words, seed, every, ...found }))
}

try {
  for (const kind of kinds) {
    for (const rate of rates) {
      for (const words of SPLITS.keys()) for (const seed of seeds) await run(kind, rate, words, seed)
    }
  }
} finally {
  await rm(folder, { recursive: true, force: true })
}
