/** Training LoRA adapters: what is refused, where they start, what is saved of them, resuming, and memory. */
import { existsSync, readFileSync, readdirSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { withAdapter } from '../lib/checkpoint/adapter/adapter.js'
import { openCheckpoint } from '../lib/checkpoint/checkpoint.js'
import { readHeader } from '../lib/checkpoint/safetensors.js'
import { trainedBeside } from '../lib/checkpoint/trained-with.js'
import { readWeight } from '../lib/checkpoint/weights.js'
import { RewardModel } from '../lib/models/reward-model.js'
import { adaptedModules } from '../lib/train/adapter-modules.js'
import { adapterOf, withNewAdapter } from '../lib/train/adapter-start.js'
import type { TrainEvaluation, TrainOptions } from '../lib/train/options.js'
import { resolveTrainOptions } from '../lib/train/resolve-options.js'
import { train } from '../lib/train/train.js'
import { type TinyFamily, writeTinyCheckpoint } from './fixtures/tiny-checkpoint.js'
import { readAdapter, writeMerged } from './support/adapters.js'
import { implexHere } from './support/cli.js'
import { rejection } from './support/engine.js'
import { sharedPath } from './support/shared.js'
import { skip } from './support/skip.js'
import { temporaryFolder } from './support/tmp.js'
import { metricsOf, pairs, writeRows } from './support/train.js'

const folder = temporaryFolder()
const at = (name: string) => join(folder, name)
const MODEL = at('llama')
const ROWS = pairs(12)
const BASE = { learningRate: 1e-2, epochs: 2, batchPairs: 4, device: 'cpu', cache: false, loraRank: 4 } as const

async function model(family: TinyFamily): Promise<string> {
  const path = at(family)
  if (!existsSync(path)) await writeTinyCheckpoint(path, { family })
  return path
}

function bytesOf(path: string): Record<string, string> {
  return Object.fromEntries(readdirSync(path).map((name) => [name, readFileSync(join(path, name)).toString('hex')]))
}

const lora = suite('LoRA training')
lora.before(async () => {
  await model('llama')
})

lora('options that need an adapter, or that an adapter leaves nothing to do, are refused by name', () => {
  const base: TrainOptions = { kind: 'explicit', out: 'run' }
  for (const alone of [{ loraAlpha: 8 }, { loraTargets: ['q_proj'] }, { rslora: true }])
    assert.throws(
      () => resolveTrainOptions({ ...base, ...alone }),
      /must be left out: it is for runs with loraRank only/,
    )
  for (const part of ['embedding', 'unembedding', 'blocks', 'norms', 'all-but-head'] as const)
    assert.throws(
      () => resolveTrainOptions({ ...base, loraRank: 4, freeze: [part] }),
      /"freeze" must be left out, or "head"/,
    )
  assert.throws(
    () => resolveTrainOptions({ ...base, loraRank: 4, loraTargets: ['all-linear', 'q_proj'] }),
    /"loraTargets" must be names, or all-linear alone/,
  )
  for (const rank of [0, 1.5, 5000])
    assert.throws(() => resolveTrainOptions({ ...base, loraRank: rank }), /"loraRank" must be/)
  const { settings } = resolveTrainOptions({ ...base, loraRank: 4, freeze: ['head'] })
  assert.equal([settings.loraAlpha, settings.loraTargets, settings.rslora], [8, ['all-linear'], false])
})

lora('names that no projection has are refused with those that there are', async () => {
  const checkpoint = await openCheckpoint(MODEL)
  for (const name of ['c_attn', 'lm_head', 'embed_tokens', 'proj', 'norm', 'layers.2.self_attn.q_proj']) {
    const error = await rejection(adaptedModules(checkpoint, ['q_proj', name]))
    assert.instance(error, RangeError)
    assert.match(
      error.message,
      /"loraTargets" must be all-linear or some of the projections of .*: q_proj, k_proj, v_proj/,
    )
  }
  const namesOf = async (...targets: string[]) => (await adaptedModules(checkpoint, targets)).map(({ name }) => name)
  assert.equal(await namesOf('mlp.down_proj', 'layers.1.self_attn.q_proj'), [
    'model.layers.0.mlp.down_proj',
    'model.layers.1.self_attn.q_proj',
    'model.layers.1.mlp.down_proj',
  ])
  assert.is((await namesOf('all-linear')).length, 14)
})

lora('the text part of a vision-language model, and a model of experts alone by its experts, are refused', async () => {
  const path = at('vision')
  await writeTinyCheckpoint(path, { family: 'llama' })
  const checkpoint = await openCheckpoint(path)
  const config = JSON.parse(readFileSync(join(path, 'config.json'), 'utf8')) as object
  writeFileSync(join(path, 'config.json'), JSON.stringify({ model_type: 'llava', text_config: config }))
  const error = await rejection(adaptedModules(checkpoint, ['all-linear']))
  assert.match(error.message, /text part of a vision-language model/)
  const dense = await adaptedModules(await openCheckpoint(await model('qwen3_moe')), ['all-linear'])
  assert.ok(dense.every(({ name }) => name.includes('self_attn')))
  const mixture = await openCheckpoint(await model('mixtral'))
  assert.match((await rejection(adaptedModules(mixture, ['w1']))).message, /"loraTargets" must be/)
  const found = await adaptedModules(mixture, ['all-linear'])
  assert.ok(found.every(({ name }) => name.includes('self_attn')))
  assert.is(found.length, 8)
})

lora('A starts uniform within ±1/√inputs, the same whatever else is trained; B starts at zero', async () => {
  const checkpoint = await openCheckpoint(MODEL)
  const start = async (name: string, loraTargets: string[], seed: number) => {
    const adapter = await adapterOf(checkpoint, { loraRank: 16, loraAlpha: 32, loraTargets, rslora: false })
    const spec = await withNewAdapter(checkpoint.spec, adapter!, seed, at(name))
    assert.ok(spec.adapters!.every(({ scale, rank }) => scale === 2 && rank === 16))
    const values = new Map<string, Float32Array>()
    for (const [tensor, entry] of await readHeader(at(name)))
      values.set(tensor, await readWeight({ ...entry, tensor, dtype: 'f32' }))
    return values
  }
  const all = await start('all', ['all-linear'], 3)
  const one = await start('one', ['v_proj'], 3)
  const other = await start('other', ['v_proj'], 4)
  assert.equal([...one.keys()], ['layers.0.v.lora_a', 'layers.0.v.lora_b', 'layers.1.v.lora_a', 'layers.1.v.lora_b'])
  for (const [name, values] of one) assert.equal(values, all.get(name))
  assert.not.equal(other.get('layers.0.v.lora_a'), one.get('layers.0.v.lora_a'))
  const seen = new Set<number>()
  for (const [name, values] of all) {
    if (name.endsWith('lora_b')) {
      assert.ok(values.every((value) => Object.is(value, 0)))
      continue
    }
    const bound = 1 / Math.sqrt(values.length / 16)
    const square = values.reduce((sum, value) => sum + value * value, 0) / values.length
    assert.ok(values.every((value) => Math.abs(value) <= bound))
    assert.ok(Math.abs(square / (bound ** 2 / 3) - 1) < 0.25, `${name}: ${square}`)
    seen.add(values[0]!)
  }
  assert.is(seen.size, 14)
})

lora('the same run gives the same bytes, another seed others; nothing of the start stays behind', async () => {
  const run = async (name: string, seed: number) => {
    const { adapter, model: whole, out } = await train(MODEL, ROWS, { ...BASE, kind: 'implicit', out: at(name), seed })
    assert.is(whole, undefined)
    assert.is(adapter, join(out, 'adapter'))
    assert.equal(readdirSync(out).sort(), ['adapter', 'checkpoints', 'config.json', 'metrics.jsonl', 'summary.json'])
    return bytesOf(adapter!)
  }
  const first = await run('first', 0)
  assert.equal(await run('second', 0), first)
  assert.not.equal((await run('third', 1))['adapter_model.safetensors'], first['adapter_model.safetensors'])
  assert.equal(Object.keys(first).sort(), [
    'README.md',
    'adapter_config.json',
    'adapter_model.safetensors',
    'chat_template.jinja',
    'implex.json',
    'tokenizer.json',
    'tokenizer_config.json',
  ])
})

lora(
  'interrupted after every step and resumed: the bytes of a run that never was; the state is the adapter alone',
  async () => {
    for (const kind of ['explicit', 'implicit'] as const) {
      const options = { ...BASE, kind, evaluation: { same: ROWS.slice(0, 5) }, checkpointSteps: 2 }
      const whole = await train(MODEL, ROWS, { ...options, out: at(`${kind}-whole`) })
      const out = at(`${kind}-parts`)
      for (let round = 0; ; round++) {
        const drain = new AbortController()
        const onStep = () => drain.abort()
        const { interrupted } = await train(MODEL, ROWS, { ...options, out, resume: true, drain: drain.signal, onStep })
        if (!interrupted) break
        assert.ok(round < 10)
      }
      const lines = (path: string) => metricsOf(path).map(({ seconds: _, ...line }) => line)
      assert.equal(lines(out), lines(whole.out))
      assert.equal(bytesOf(join(out, 'adapter')), bytesOf(whole.adapter!))
      const [step] = readdirSync(join(out, 'checkpoints'))
      const { size } = statSync(join(out, 'checkpoints', step!, 'state.bin'))
      const { memory } = whole.summary!
      assert.ok(size < 1.5 * (memory.parameters! / 2 + memory.moments!) + 8192, `${size} bytes`)
      const again = await train(MODEL, ROWS, { ...options, out, resume: true })
      assert.is(again.adapter, join(out, 'adapter'))
    }
  },
)

lora('a run with another adapter is another run', async () => {
  const options = { ...BASE, kind: 'implicit', out: at('other-run') } as const
  await train(MODEL, ROWS, options)
  for (const change of [{ loraRank: 2 }, { loraAlpha: 9 }, { loraTargets: ['q_proj'] }, { rslora: true }]) {
    const error = await rejection(train(MODEL, ROWS, { ...options, ...change, resume: true }))
    assert.is((error as { code?: string }).code, 'ERR_RESUME_MISMATCH')
    assert.match(error.message, new RegExp(Object.keys(change)[0]!))
  }
})

const CASES: { family: TinyFamily; options: Partial<TrainOptions> & { kind: 'explicit' | 'implicit' } }[] = [
  { family: 'llama', options: { kind: 'implicit' } },
  { family: 'llama', options: { kind: 'explicit', loraTargets: ['q_proj', 'v_proj'], loraAlpha: 3 } },
  { family: 'llama', options: { kind: 'explicit', freeze: ['head'], rslora: true } },
  { family: 'qwen2', options: { kind: 'implicit', rslora: true } },
  { family: 'phi3', options: { kind: 'implicit' } },
  { family: 'phi3', options: { kind: 'explicit', rslora: true } },
  { family: 'gpt_neox', options: { kind: 'implicit', loraTargets: ['query_key_value', 'dense'] } },
  { family: 'gpt_neox', options: { kind: 'explicit' } },
  { family: 'gemma2', options: { kind: 'implicit' } },
  { family: 'mixtral', options: { kind: 'implicit' } },
]

for (const [i, { family, options }] of CASES.entries()) {
  lora(`${family}, ${JSON.stringify(options)}: the saved adapter over the base has the trained rewards`, async () => {
    const base = await model(family)
    const seen: TrainEvaluation[] = []
    const { adapter } = await train(base, ROWS, {
      ...BASE,
      ...options,
      out: at(`case-${i}`),
      evaluation: { same: ROWS },
      onEvaluation: (one) => seen.push(one),
    })
    const merged = at(`case-${i}-merged`)
    const head = await writeMerged(merged, base, adapter!)
    assert.is(head !== undefined, options.kind === 'explicit')
    const scoring =
      options.kind === 'explicit'
        ? ({ kind: 'explicit', head, headAt: 'last' } as const)
        : ({ kind: 'implicit', reference: base, beta: 0.01 } as const)
    using rewards = await RewardModel.open(merged, { ...scoring, device: 'cpu', cache: false })
    const found = (await rewards.score(ROWS)).rewards as [number, number][]
    const mean = (values: number[]) => values.reduce((sum, value) => sum + value, 0) / values.length
    const last = seen.at(-1)!
    const scale = Math.max(...found.flat().map(Math.abs))
    const near = (value: number, expected: number, what: string) =>
      assert.ok(Math.abs(value - expected) < 1e-4 * scale, `${what}: ${value}, expected ${expected}`)
    near(mean(found.map(([chosen]) => chosen)), last.meanChosen, 'chosen')
    near(mean(found.map(([, rejected]) => rejected)), last.meanRejected!, 'rejected')
    using own = await RewardModel.open(base, { ...scoring, head: undefined, adapter, device: 'cpu', cache: false })
    const exact = (await own.score(ROWS)).rewards as [number, number][]
    for (const [k, expected] of [last.meanChosen, last.meanRejected!].entries())
      assert.ok(
        Math.abs(mean(exact.map((pair) => pair[k]!)) - expected) < 1e-14 * scale,
        'with --adapter, the same bits',
      )
    near(mean(found.map(([a, b]) => Math.log1p(Math.exp(b - a)))), last.loss, 'loss')
    assert.ok(seen[0]!.loss - last.loss > 100 * 1e-4 * scale, 'training did something')
  })
}

lora('tokens that the template brings: their rows are saved, and the reference has them too', async () => {
  const stories = sharedPath('models/stories260K')
  if (stories === undefined) return skip('../shared/models/stories260K is absent')
  for (const kind of ['implicit', 'explicit'] as const) {
    const seen: TrainEvaluation[] = []
    const { adapter } = await train(stories, ROWS, {
      ...{ ...BASE, kind, out: at(`stories-${kind}`), evaluation: { same: ROWS } },
      onEvaluation: (one) => seen.push(one),
    })
    const scoring = kind === 'implicit' ? { beta: 0.01 } : { headAt: 'last' as const }
    using model = await RewardModel.open(stories, { kind, adapter, ...scoring, device: 'cpu', cache: false })
    const { rewards } = await model.score(ROWS)
    const mean = rewards.reduce((sum, pair) => sum + pair[0]!, 0) / rewards.length
    assert.ok(Math.abs(mean - seen.at(-1)!.meanChosen) < 1e-14 * Math.abs(mean) + 1e-15, `${kind}: ${mean}`)
  }
})

lora('the record beside an adapter says how prompt and response were parted', async () => {
  for (const border of ['whole', 'separate'] as const) {
    const { adapter } = await train(MODEL, ROWS, {
      ...BASE,
      kind: 'sft',
      epochs: 1,
      border,
      out: at(`border-${border}`),
    })
    assert.equal(await trainedBeside(adapter!), { border })
    assert.is((await withAdapter(await openCheckpoint(MODEL), adapter!)).border, border)
    writeFileSync(join(adapter!, 'implex.json'), '{"border": "none"}')
    assert.match((await rejection(trainedBeside(adapter!))).message, /implex.json: "border" must be one of "whole"/)
  }
  const { adapter } = await train(MODEL, ROWS, { ...BASE, kind: 'generative', epochs: 1, out: at('no-border') })
  assert.equal(await trainedBeside(adapter!), {})
})

lora('the command: flags, what it says, a resumed run, flags without a rank', async () => {
  const data = writeRows(at('pairs.jsonl'), ROWS)
  const base = ['train', '--model', MODEL, '--data', data, '--kind', 'implicit', '--device', 'cpu', '--epochs', '1']
  const flags = ['--lora-rank', '2', '--lora-targets', 'q_proj,v_proj', '--lora-alpha', '3', '--rslora', '--no-cache']
  const { status, stderr } = await implexHere([...base, ...flags, '--out', at('command')])
  assert.is(status, 0, stderr)
  assert.ok(stderr.includes(`adapter: ${at('command/adapter')}`), stderr)
  const { config } = await readAdapter(at('command/adapter'))
  assert.equal(
    [config.r, config.lora_alpha, config.use_rslora, config.target_modules],
    [2, 3, true, ['q_proj', 'v_proj']],
  )
  const again = await implexHere(['train', '--out', at('command'), '--resume'])
  assert.equal([again.status, again.stderr.includes(at('command/adapter'))], [0, true], again.stderr)
  const alone = await implexHere([...base, '--rslora', '--out', at('alone')])
  assert.is(alone.status, 2)
  assert.match(alone.stderr, /loraRank/)
  const wrong = await implexHere([...base, '--lora-rank', '2', '--lora-targets', 'c_attn', '--out', at('wrong')])
  assert.is(wrong.status, 2)
  assert.match(wrong.stderr, /some of the projections/)
  assert.not.ok(existsSync(at('wrong')))
})

lora('peft finds every module by the names and patterns that are saved', async () => {
  const { config, tensors } = await readAdapter(join(at('case-5'), 'adapter'))
  assert.equal(config.target_modules, ['down_proj', 'gate_up_proj', 'o_proj', 'qkv_proj'])
  assert.equal(config.rank_pattern, { gate_up_proj: 8, qkv_proj: 12 })
  assert.equal([config.task_type, config.modules_to_save], ['SEQ_CLS', ['classifier', 'score']])
  assert.equal(tensors.get('base_model.model.score.weight')!.shape, [1, 32])
  const card = readFileSync(join(at('case-5'), 'adapter', 'README.md'), 'utf8')
  const { run } = JSON.parse(readFileSync(join(at('case-5'), 'config.json'), 'utf8'))
  for (const fact of [at('phi3'), run.decisive.model, run.decisive.data, 'learningRate | 0.01', '| same | 12 |'])
    assert.ok(card.includes(fact), fact)
})

lora('the reference is the base: its log-probabilities are those that full training has kept', async () => {
  const options = { ...BASE, kind: 'implicit', cache: true, cacheDir: at('cache'), epochs: 1 } as const
  const full = await train(MODEL, ROWS, { ...options, loraRank: undefined, out: at('full') })
  assert.equal([full.summary!.cacheHits, full.summary!.cacheMisses], [0, 24])
  const adapted = await train(MODEL, ROWS, { ...options, out: at('adapted') })
  assert.equal([adapted.summary!.cacheHits, adapted.summary!.cacheMisses], [24, 0])
  for (const dtype of ['f32', 'bf16'] as const)
    await train(MODEL, ROWS, { ...options, dtype, cacheDir: at('fresh'), out: at(`fresh-${dtype}`) })
})

lora('memory counts the adapter alone, and a run that does not fit is told of it', async () => {
  const options = { ...BASE, kind: 'explicit', epochs: 1 } as const
  const { memory } = (await train(MODEL, ROWS, { ...options, out: at('small') })).summary!
  const { memory: full } = (await train(MODEL, ROWS, { ...options, loraRank: undefined, out: at('large') })).summary!
  assert.ok(memory.parameters! < full.parameters! / 8 && memory.moments! < full.moments! / 8)
  assert.ok(memory.saving! < full.saving! / 8)
  const { size } = statSync(join(at('small'), 'adapter', 'adapter_model.safetensors'))
  assert.ok(memory.saving! >= size - 8192 && memory.saving! <= 2 * size)
  const refusal = (memoryLimit: number, more: Partial<TrainOptions> = {}) =>
    rejection(train(MODEL, ROWS, { ...options, out: at('refused'), memoryLimit, ...more }))
  const large = await refusal(full.weights! + full.parameters!, { loraRank: undefined })
  assert.match(large.message, /--lora-rank 16 \(option loraRank\)/)
  const activations = await refusal(memory.total! - memory.activations! / 2)
  assert.match(activations.message, /--micro-batch-tokens .*--recompute/)
  assert.not.match(activations.message, /--lora-rank/)
  assert.not.match((await refusal(memory.total! / 2, { recompute: true })).message, /--recompute/)
})

lora.run()
