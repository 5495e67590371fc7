/** train(): what it computes, what it writes, and what it refuses. */
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { type Checkpoint, openCheckpoint, readHead } from '../lib/checkpoint/checkpoint.js'
import { writeSafetensors } from '../lib/checkpoint/write.js'
import { ReferenceCache } from '../lib/data/reference-cache.js'
import { ImplexError, type ImplexErrorCode } from '../lib/core/errors.js'
import { snakeKeys } from '../lib/core/keys.js'
import { RewardModel } from '../lib/models/reward-model.js'
import type { TrainOptions, TrainStep } from '../lib/train/options.js'
import { Random } from '../lib/core/random.js'
import { scheduleFactor, warmupLength } from '../lib/train/schedule.js'
import { train } from '../lib/train/train.js'
import { TINY_FAMILIES, type TinyCheckpointOptions, writeTinyCheckpoint } from './fixtures/tiny-checkpoint.js'
import { tinyTokenizer } from './fixtures/tiny-tokenizer.js'
import { metricsOf, pairs, resultOf, writeRows } from './support/train.js'
import { temporaryFolder } from './support/tmp.js'

const folder = temporaryFolder()
const at = (name: string) => join(folder, name)
const MODEL = at('model')
await writeTinyCheckpoint(MODEL)
const ROWS = pairs(45)
const TEST = pairs(20, 9)
let runs = 0
const options = (more: Partial<TrainOptions> = {}): TrainOptions => ({
  kind: 'explicit',
  out: at(`run-${runs++}`),
  learningRate: 1e-3,
  epochs: 2,
  batchPairs: 8,
  device: 'cpu',
  cacheDir: at('cache'),
  ...more,
})

async function refused(promise: Promise<unknown>, code: ImplexErrorCode, ...parts: string[]): Promise<ImplexError> {
  const error = await promise.then(
    () => assert.unreachable('was not rejected'),
    (reason: unknown) => reason,
  )
  assert.instance(error, ImplexError, String(error))
  const found = error as ImplexError
  assert.is(found.code, code, found.message)
  for (const part of parts) assert.ok(found.message.includes(part), `${found.message}\nhas no: ${part}`)
  return found
}

const numbers = suite('random numbers and schedules')

numbers('xoshiro128** as published', () => {
  const random = new Random([1, 2, 3, 4])
  assert.equal([random.bits(), random.bits(), random.bits()], [11520, 0, 5927040])
  const copy = new Random(random.state)
  assert.is(copy.bits(), random.bits())
})

numbers('orders are permutations, seeds and streams differ, normal numbers are normal', () => {
  const order = Random.seeded(0, 0).permutation(100)
  assert.equal(
    [...order].sort((a, b) => a - b),
    [...Array(100).keys()],
  )
  assert.equal(order, Random.seeded(0, 0).permutation(100))
  assert.not.equal(order, Random.seeded(1, 0).permutation(100))
  assert.not.equal(order, Random.seeded(0, 1).permutation(100))
  const random = Random.seeded(3, 0)
  const values = Array.from({ length: 20_000 }, () => random.normal())
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length
  const variance = values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / values.length
  assert.ok(Math.abs(mean) < 0.03 && Math.abs(variance - 1) < 0.04, `${mean} ${variance}`)
})

numbers('schedules are those of transformers', () => {
  assert.equal(
    [0, 1, 2, 3, 50].map((step) => scheduleFactor('constant', step, 100, 2)),
    [0, 0.5, 1, 1, 1],
  )
  assert.equal(
    [0, 5, 10, 55, 100].map((step) => scheduleFactor('linear', step, 100, 10)),
    [0, 0.5, 1, 0.5, 0],
  )
  assert.equal(scheduleFactor('cosine', 0, 100, 0), 1)
  assert.ok(Math.abs(scheduleFactor('cosine', 50, 100, 0) - 0.5) < 1e-15)
  assert.equal([warmupLength(0.1, 95), warmupLength(3, 95), warmupLength(0, 95)], [10, 3, 0])
})
numbers.run()

const learning = suite('train')

for (const kind of ['explicit', 'implicit', 'generative', 'sft'] as const) {
  learning(`${kind}: the loss falls, the saved model gives the rewards of the last evaluation`, async () => {
    const { out, summary, model } = await train(MODEL, ROWS, options({ kind, evaluation: { test: TEST } }))
    const steps = metricsOf(out).filter((line) => line.evaluation === undefined)
    assert.is(steps.length, 12) // ceil(45 / 8) in each of 2 epochs
    assert.is(summary!.steps, 12)
    assert.ok(steps.at(-1)!.loss < steps[0]!.loss)
    const evaluations = metricsOf(out).filter((line) => line.evaluation === 'test')
    assert.equal(
      evaluations.map(({ step, epoch }) => [step, epoch]),
      [
        [0, 0],
        [6, 1],
        [12, 2],
      ],
    )
    assert.equal({ evaluation: 'test', ...snakeKeys(summary!.evaluation['test']!) }, evaluations.at(-1))
    if (kind === 'sft') return
    const reference = kind === 'implicit' ? { reference: MODEL } : {}
    using saved = await RewardModel.open(model!, { kind, device: 'cpu', cache: false, ...reference })
    const { rewards } = await saved.score(TEST)
    const mean = (k: 0 | 1) => rewards.reduce((sum, pair) => sum + pair[k]!, 0) / rewards.length
    const last = evaluations.at(-1)!
    assert.ok(Math.abs(mean(0) - (last['mean_chosen'] as number)) < 1e-12)
    assert.ok(Math.abs(mean(1) - (last['mean_rejected'] as number)) < 1e-12)
  })
}

learning(
  'an implicit run begins at reward 0, loss ln 2 and accuracy one half, also with a cached reference',
  async () => {
    for (const hits of [0, 90]) {
      const { out, summary } = await train(
        MODEL,
        writeRows(at('cached.jsonl'), ROWS),
        options({ kind: 'implicit', epochs: 1 }),
      )
      const [first] = metricsOf(out)
      assert.equal([first!.loss, first!.accuracy, first!['margin'], first!['chosen_reward']], [Math.LN2, 0.5, 0, 0])
      assert.is(summary!.cacheHits, hits)
    }
  },
)

learning('another reference: the step-0 rewards are those of scoring', async () => {
  const reference = at('reference')
  if (!existsSync(reference)) await writeTinyCheckpoint(reference, { seed: 2 })
  const evaluation = { test: TEST }
  const { out } = await train(MODEL, ROWS, options({ kind: 'implicit', reference, beta: 0.1, epochs: 1, evaluation }))
  using model = await RewardModel.open(MODEL, { kind: 'implicit', reference, beta: 0.1, device: 'cpu', cache: false })
  const { rewards } = await model.score(TEST)
  const mean = rewards.reduce((sum, pair) => sum + pair[0]!, 0) / rewards.length
  assert.ok(Math.abs(mean - (metricsOf(out)[0]!['mean_chosen'] as number)) < 1e-12)
})

learning('the same run twice has the same bytes; another seed has not', async () => {
  const results = []
  for (const seed of [4, 4, 5])
    results.push(resultOf((await train(MODEL, ROWS, options({ kind: 'implicit', seed }))).out))
  assert.equal(results[0], results[1])
  assert.not.equal(results[0]!.model['model.safetensors'], results[2]!.model['model.safetensors'])
})

learning('kinds of the same seed see the same pairs in the same order', async () => {
  const tokens = []
  for (const kind of ['explicit', 'implicit'] as const)
    tokens.push(metricsOf((await train(MODEL, ROWS, options({ kind }))).out).map((line) => line['tokens']))
  assert.equal(tokens[0], tokens[1])
})

learning('micro-batches add up to one large batch, to rounding', async () => {
  for (const kind of ['explicit', 'implicit'] as const) {
    const whole = metricsOf((await train(MODEL, ROWS, options({ kind, batchPairs: 45 }))).out)
    const pieces = metricsOf((await train(MODEL, ROWS, options({ kind, batchPairs: 45, microBatchTokens: 60 }))).out)
    for (const [i, line] of whole.entries()) {
      assert.ok(Math.abs(line.loss - pieces[i]!.loss) < 1e-5, `${kind}: ${line.loss} ${pieces[i]!.loss}`)
      const [a, b] = [line['gradient_norm'] as number, pieces[i]!['gradient_norm'] as number]
      assert.ok(Math.abs(a - b) < 1e-4 * a, `${kind}: ${a} ${b}`)
    }
  }
})

learning('recomputation changes no bit', async () => {
  const keep = await train(MODEL, ROWS, options())
  const again = await train(MODEL, ROWS, options({ recompute: true }))
  assert.equal(resultOf(keep.out), resultOf(again.out))
  assert.ok(again.summary!.memory.activations <= keep.summary!.memory.activations)
})

learning('margins of the data, label smoothing and centering are in the loss', async () => {
  const first = async (more: Partial<TrainOptions>, rows: typeof ROWS = ROWS) => {
    const { out } = await train(
      MODEL,
      rows,
      options({ kind: 'implicit', batchPairs: 45, epochs: 1, cache: false, ...more }),
    )
    return metricsOf(out)[0]!.loss
  }
  const softplus = (x: number) => Math.log1p(Math.exp(x))
  const shifted = ROWS.map((row) => ({ ...row, margin: 0.5 }))
  assert.ok(Math.abs((await first({}, shifted)) - softplus(0.5)) < 1e-12)
  const smooth = 0.9 * softplus(0.5) + 0.1 * softplus(-0.5)
  assert.ok(Math.abs((await first({ labelSmoothing: 0.1 }, shifted)) - smooth) < 1e-12)
  assert.ok((await first({ reference: 'none', centering: 1 })) > (await first({ reference: 'none' })))
  assert.ok(Math.abs((await first({ lengthNormalized: true })) - Math.LN2) < 1e-12)
})

learning('frozen parts stay as they are, bit for bit', async () => {
  const before = await openCheckpoint(MODEL)
  const bytes = (role: string, { spec }: Checkpoint) => {
    const weight = spec.weights.find((one) => one.role === role)!
    return readFileSync(weight.file)
      .subarray(weight.offset, weight.offset + weight.bytes)
      .toString('hex')
  }
  const cases = [
    {
      freeze: ['embedding', 'norms'],
      same: ['embedding', 'final_norm', 'layers.0.mlp_norm'],
      moved: ['layers.0.q', 'unembedding'],
    },
    { freeze: ['blocks', 'unembedding'], same: ['layers.1.down', 'unembedding'], moved: ['embedding', 'final_norm'] },
  ] as const
  for (const { freeze, same, moved } of cases) {
    const { model } = await train(MODEL, ROWS, options({ kind: 'implicit', freeze: [...freeze], epochs: 1 }))
    const after = await openCheckpoint(model!)
    for (const role of same) assert.is(bytes(role, after), bytes(role, before), role)
    for (const role of moved) assert.is.not(bytes(role, after), bytes(role, before), role)
  }
  const { model } = await train(MODEL, ROWS, options({ freeze: ['all-but-head'], epochs: 1 }))
  const after = await openCheckpoint(model!)
  for (const { role } of after.spec.weights) {
    if (role !== 'head') assert.is(bytes(role, after), bytes(role, before), role)
  }
})

learning('heads: given, of the checkpoint, frozen, or random by seed', async () => {
  const head = Float32Array.from({ length: 32 }, (_, i) => i / 100)
  const start = async (more: Partial<TrainOptions>, path = MODEL) => {
    const { model, summary } = await train(path, ROWS, options({ learningRate: 0, epochs: 1, ...more }))
    return { head: await readHead(model!, 32), origin: summary!.head }
  }
  assert.equal(await start({ head }), { head, origin: 'given' })
  await writeSafetensors(at('head.safetensors'), [{ name: 'score.weight', shape: [1, 32], data: head }])
  assert.equal(await start({ head: at('head.safetensors') }), { head, origin: 'given' })
  const owner = at('with-head')
  await writeTinyCheckpoint(owner, { head: 'instead' })
  assert.equal(await start({}, owner), { head: await readHead(owner, 32), origin: 'checkpoint' })
  assert.equal(await start({ freeze: ['head'], learningRate: 1e-2 }, owner), {
    head: await readHead(owner, 32),
    origin: 'checkpoint',
  })
  const random = await start({ seed: 1 })
  assert.is(random.origin, 'random')
  assert.equal(random, await start({ seed: 1 }))
  assert.not.equal(random.head, (await start({ seed: 2 })).head)
  const deviation = Math.sqrt(random.head.reduce((sum, value) => sum + value * value, 0) / 32)
  assert.ok(deviation > 0.05 && deviation < 0.12, `${deviation}: initializer_range is 0.08`)
})
learning.run()

const saving = suite('saved models')

for (const family of TINY_FAMILIES) {
  for (const tied of [false, true]) {
    saving(`${family}${tied ? ', tied' : ''}: nothing trained, nothing changed`, async () => {
      const path = at(`${family}-${tied}`)
      await writeTinyCheckpoint(path, { family, tied } as TinyCheckpointOptions)
      for (const kind of ['explicit', 'implicit'] as const) {
        const { model } = await train(path, ROWS.slice(0, 8), options({ kind, learningRate: 0, epochs: 1 }))
        const config = JSON.parse(readFileSync(join(model!, 'config.json'), 'utf8'))
        const task = kind === 'explicit' ? 'ForSequenceClassification' : 'ForCausalLM'
        assert.match(config.architectures[0], new RegExp(`${task}$`))
        if (kind === 'explicit') assert.equal([config.num_labels, config.pad_token_id], [1, 4])
        const head = kind === 'explicit' ? { head: model! } : {}
        using before = await RewardModel.open(path, { kind, device: 'cpu', ...head })
        using after = await RewardModel.open(model!, { kind, device: 'cpu' })
        assert.equal((await after.score(TEST)).rewards, (await before.score(TEST)).rewards)
        assert.is(
          after.checkpoint.spec.weights.some(({ role }) => role === 'unembedding'),
          kind === 'implicit' && !tied,
        )
      }
    })
  }
}

saving('a model without a template is saved with the default one, its tokens, and rows for them', async () => {
  const path = at('bare-text')
  const { size } = tinyTokenizer()
  await writeTinyCheckpoint(path, { vocabSize: size })
  rmSync(join(path, 'chat_template.jinja'))
  for (const kind of ['explicit', 'implicit'] as const) {
    const { model, summary } = await train(path, ROWS, options({ kind, epochs: 1, evaluation: { test: TEST } }))
    assert.is(summary!.template, 'default')
    using saved = await RewardModel.open(model!, {
      kind,
      device: 'cpu',
      reference: kind === 'implicit' ? model! : undefined,
    })
    assert.is(saved.templateSource, 'checkpoint')
    assert.equal([saved.checkpoint.spec.vocabSize, saved.checkpoint.spec.addedTokens], [size + 2, 0])
    const tokenizer = JSON.parse(readFileSync(join(model!, 'tokenizer.json'), 'utf8'))
    assert.equal(
      tokenizer.added_tokens.slice(-2).map((token: { id: number; content: string }) => [token.id, token.content]),
      [
        [size, '<|user|>'],
        [size + 1, '<|assistant|>'],
      ],
    )
    if (kind === 'implicit') continue
    const { rewards } = await saved.score(TEST)
    const mean = rewards.reduce((sum, pair) => sum + pair[0]!, 0) / rewards.length
    assert.ok(Math.abs(mean - (summary!.evaluation['test']!.meanChosen as number)) < 1e-12)
  }
})

saving('a padding token that ends responses is replaced: transformers reads the reward before padding', async () => {
  const path = at('pad-is-end')
  await writeTinyCheckpoint(path)
  const settings = JSON.parse(readFileSync(join(path, 'tokenizer_config.json'), 'utf8'))
  writeFileSync(join(path, 'tokenizer_config.json'), JSON.stringify({ ...settings, pad_token: '<|end|>' }))
  const { model } = await train(path, ROWS.slice(0, 8), options({ epochs: 1 }))
  const config = JSON.parse(readFileSync(join(model!, 'config.json'), 'utf8'))
  assert.is(config.pad_token_id, 0)
  assert.is(JSON.parse(readFileSync(join(model!, 'tokenizer_config.json'), 'utf8')).pad_token, '<|begin|>')
})

saving('bf16: matrices are stored as they are computed with, so the rewards are the same', async () => {
  const { model, summary } = await train(MODEL, ROWS, options({ dtype: 'bf16', epochs: 1, evaluation: { test: TEST } }))
  using saved = await RewardModel.open(model!, { kind: 'explicit', device: 'cpu', dtype: 'bf16' })
  assert.is(saved.checkpoint.dtype, 'bf16')
  const { rewards } = await saved.score(TEST)
  const mean = rewards.reduce((sum, pair) => sum + pair[0]!, 0) / rewards.length
  assert.ok(Math.abs(mean - (summary!.evaluation['test']!.meanChosen as number)) < 1e-12)
})
saving.run()

const resuming = suite('run folders')

resuming('drained and resumed again and again = never interrupted', async () => {
  const more = { kind: 'implicit', epochs: 3, evaluation: { test: TEST }, evaluateEpochs: 2 } as const
  const undisturbed = await train(MODEL, ROWS, options(more))
  const broken = options(more)
  let rounds = 0
  for (;;) {
    const drain = new AbortController()
    let left = 1 + (rounds % 4)
    const onStep = () => --left === 0 && drain.abort()
    if (rounds === 0) drain.abort() // before anything was done
    const { interrupted, steps } = await train(MODEL, ROWS, {
      ...broken,
      resume: rounds > 0,
      drain: drain.signal,
      onStep,
    })
    rounds++
    if (!interrupted) break
    assert.ok(steps < 18)
  }
  assert.ok(rounds > 5)
  assert.equal(resultOf(broken.out), resultOf(undisturbed.out))
  assert.is(readdirSync(join(broken.out, 'checkpoints')).length, 2)
  const again = await train(MODEL, ROWS, { ...broken, resume: true })
  assert.equal([again.interrupted, again.steps], [false, 18])
})

resuming('a damaged checkpoint costs the way back to the one before', async () => {
  const more = { kind: 'explicit', checkpointSteps: 2 } as const
  const undisturbed = await train(MODEL, ROWS, options(more))
  const broken = options(more)
  const drain = new AbortController()
  await train(MODEL, ROWS, { ...broken, drain: drain.signal, onStep: ({ step }) => step === 7 && drain.abort() })
  const newest = join(broken.out, 'checkpoints', 'step-000000007')
  truncateSync(join(newest, 'state.bin'), 1000)
  const warnings: string[] = []
  await train(MODEL, ROWS, { ...broken, resume: true, onWarning: (message) => warnings.push(message) })
  assert.match(warnings.join(), /step-000000007 cannot be used: .*truncated; continuing from step-000000006/)
  assert.equal(resultOf(broken.out), resultOf(undisturbed.out))
})

resuming('an aborted run leaves its last checkpoint', async () => {
  const broken = options({ checkpointSteps: 3 })
  const abort = new AbortController()
  const onStep = ({ step }: TrainStep) => step === 5 && abort.abort()
  await refused(train(MODEL, ROWS, { ...broken, signal: abort.signal, onStep }), 'ERR_ABORTED')
  const steps: number[] = []
  await train(MODEL, ROWS, { ...broken, resume: true, onStep: ({ step }) => steps.push(step) })
  assert.is(steps[0], 4)
})

resuming('a complete run gives its summary back: camelCase in TypeScript, snake_case in its file', async () => {
  const first = options({ evaluation: { my_set: TEST } })
  const { summary } = await train(MODEL, ROWS, first)
  const file = JSON.parse(readFileSync(join(first.out, 'summary.json'), 'utf8'))
  const keys = (one: { last_step?: object; lastStep?: object; memory: object; evaluation: Record<string, object> }) =>
    [one, one.last_step ?? one.lastStep, one.memory, one.evaluation['my_set']].flatMap((part) => Object.keys(part!))
  assert.ok(keys(file).includes('normalized_margin') && keys(file).every((key) => /^[a-z_]+$/.test(key)))
  assert.ok(keys(summary as never).includes('normalizedMargin'))
  assert.ok(keys(summary as never).every((key) => /^[a-zA-Z]+$/.test(key)))
  const again = await train(MODEL, ROWS, { ...first, resume: true })
  assert.equal(again.summary, JSON.parse(JSON.stringify(summary)))
})

resuming('another run cannot take over a folder', async () => {
  const first = options()
  await train(MODEL, ROWS, first)
  await refused(train(MODEL, ROWS, first), 'ERR_RESUME_MISMATCH', 'already contains a run', '--resume')
  await refused(train(MODEL, ROWS, { ...first, resume: true, epochs: 3 }), 'ERR_RESUME_MISMATCH', 'epochs was 2, now 3')
  rmSync(join(first.out, 'summary.json'))
  await refused(train(MODEL, ROWS.slice(1), { ...first, resume: true }), 'ERR_RESUME_MISMATCH', 'data was content')
  await train(MODEL, ROWS, { ...first, resume: true })
  const other = at('not-a-run')
  mkdirSync(other)
  writeFileSync(join(other, 'notes.txt'), '')
  await refused(train(MODEL, ROWS, options({ out: other })), 'ERR_RESUME_MISMATCH', 'is not empty and contains no run')
})
resuming.run()

const refusals = suite('refusals')

refusals('wrong arguments', async () => {
  const wrong: [Partial<TrainOptions>, RegExp][] = [
    [{ epochs: 0 }, /"epochs"/],
    [{ kind: 'dpo' as never }, /"kind"/],
    [{ beta: 0.1 }, /"beta".*for the implicit kind only/],
    [{ momentum: 0.9 }, /"momentum".*rmsprop and sgd only/],
    [{ labelSmoothing: 0.5 }, /"labelSmoothing"/],
    [{ freeze: ['everything' as never] }, /"freeze"/],
    [{ kind: 'implicit', freeze: ['all-but-head'] }, /all-but-head/],
    [{ evaluation: { 'a/b': TEST } }, /the name of a data set/],
    [{ head: new Float32Array(3) }, /"head".*32/],
    [{ warmupSteps: 1.5 }, /"warmupSteps"/],
  ]
  for (const [more, pattern] of wrong) {
    const error = await train(MODEL, ROWS, options(more)).then(
      () => assert.unreachable(`${pattern}`),
      (reason: unknown) => reason as Error,
    )
    assert.ok(error instanceof TypeError || error instanceof RangeError, String(error))
    assert.match(error.message, pattern)
  }
})

refusals('bad data: the line, before anything is trained', async () => {
  const good = pairs(3)
  const file = writeRows(at('bad.jsonl'), [...good, { prompt: 'x', chosen: 'y' }])
  const error = await refused(train(MODEL, file, options()), 'ERR_ROW_INVALID', 'bad.jsonl', 'line 4', '"rejected"')
  assert.is(error.line, 4)
  await refused(
    train(MODEL, [{ prompt: 'x', responses: ['a', 'b'] }], options()),
    'ERR_ROW_INVALID',
    'row 0',
    'a pair is needed',
  )
  await refused(train(MODEL, [], options()), 'ERR_ROW_INVALID', 'no rows')
  await refused(train(MODEL, at('absent.jsonl'), options()), 'ERR_IO', 'no such file')
  const long = [...good, { ...good[0]!, chosen: 'water '.repeat(300) }]
  await refused(train(MODEL, long, options()), 'ERR_ROW_TOO_LONG', 'row 3')
  const { summary } = await train(MODEL, long, options({ onLong: 'skip', epochs: 1 }))
  assert.equal([summary!.pairs, summary!.skipped], [3, 1])
})

refusals('bad rows left out: the run of the good ones, with their number and the first of them', async () => {
  const [first, ...rest] = pairs(6)
  const bad = [{ prompt: 'x', chosen: 'a', rejected: ' ' }, { prompt: 'x' }, { prompt: 'x', responses: ['a', 'b'] }]
  const file = writeRows(at('some-bad.jsonl'), [first, ...bad, ...rest])
  await refused(train(MODEL, file, options()), 'ERR_RESPONSE_EMPTY', 'line 2')
  const warnings: string[] = []
  const skip = options({ onError: 'skip', epochs: 1, onWarning: (message) => warnings.push(message) })
  const { summary } = await train(MODEL, file, skip)
  assert.equal([summary!.pairs, summary!.errors, summary!.skipped], [6, 3, 0])
  assert.match(warnings.join(), /some-bad\.jsonl: 3 bad rows are left out, the first: line 2: "rejected" is empty/)
  const good = options({ epochs: 1 })
  await train(MODEL, writeRows(at('all-good.jsonl'), [first, ...rest]), good)
  assert.equal(resultOf(skip.out), resultOf(good.out))
  await refused(
    train(MODEL, bad as never, options({ onError: 'skip' })),
    'ERR_ROW_INVALID',
    'no row is left; 3 bad rows',
  )
})

refusals('more memory than there is: the numbers, before the model is loaded or before the first step', async () => {
  await refused(
    train(MODEL, ROWS, options({ memoryLimit: 300_000 })),
    'ERR_OUT_OF_MEMORY',
    'weights 161 KiB',
    'moments',
    '293 KiB are free',
    '--freeze',
  )
  await refused(
    train(MODEL, ROWS, options({ memoryLimit: 1_500_000 })),
    'ERR_OUT_OF_MEMORY',
    'activations of a micro-batch of',
    '--micro-batch-tokens',
  )
  const { summary } = await train(MODEL, ROWS, options({ memoryLimit: 3_000_000, microBatchTokens: 64, epochs: 1 }))
  const { total, available, weights } = summary!.memory
  assert.ok(weights < total && total < available)
})

refusals('a loss that is not finite: the step, the row and the tensor; the checkpoint before it is good', async () => {
  const run = options({ learningRate: 1e30, checkpointSteps: 1, optimizer: 'sgd' })
  const error = await refused(train(MODEL, ROWS, run), 'ERR_NOT_FINITE', 'step 1', 'row ', '(id ', 'intact')
  assert.match(error.message, /parameter|output|gradient|loss itself/)
  const second = options({ learningRate: 1e18, warmupSteps: 4, optimizer: 'sgd', checkpointSteps: 1, epochs: 9 })
  const late = await refused(train(MODEL, ROWS, second), 'ERR_NOT_FINITE', 'intact')
  assert.match(late.message, /step [1-9]/)
  assert.ok(readdirSync(join(second.out, 'checkpoints')).length > 0)
  await refused(train(MODEL, ROWS, { ...second, resume: true }), 'ERR_NOT_FINITE')
})

refusals('text that doubles the beginning of sequence', async () => {
  const template = at('twice.jinja')
  const text = readFileSync(join(MODEL, 'chat_template.jinja'), 'utf8')
  writeFileSync(template, `{{ bos_token }}${text}`)
  await refused(
    train(MODEL, ROWS, options({ template })),
    'ERR_SELF_CHECK',
    'row 0',
    'two beginning-of-sequence tokens',
  )
})

refusals('a cached reference of another model', async () => {
  const file = writeRows(at('poisoned.jsonl'), ROWS)
  const run = () => options({ kind: 'implicit', cacheDir: at('poison'), epochs: 1 })
  await train(MODEL, file, run())
  // The same weights under the same name, but the file of values is another's: what its checks cannot see, the rewards tell.
  const original = ReferenceCache.prototype.get
  ReferenceCache.prototype.get = async () => -1
  try {
    await refused(train(MODEL, file, run()), 'ERR_SELF_CHECK', 'must start at 0', '--no-cache')
  } finally {
    ReferenceCache.prototype.get = original
  }
})

refusals('folders that cannot be', async () => {
  writeFileSync(at('a-file'), '')
  await refused(train(MODEL, ROWS, options({ out: at('a-file/run') })), 'ERR_IO', 'a-file')
  await refused(train(at('nowhere'), ROWS, options()), 'ERR_CHECKPOINT_NOT_FOUND', 'nowhere')
})
refusals.run()
