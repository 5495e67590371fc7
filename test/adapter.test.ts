/**
 * LoRA adapters over tiny bases: every key and tensor that counts changes exactly the weights that it should, by the formula in double
 * precision, and what does not belong to the base is refused with file and tensor.
 */
import { rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { openCheckpoint } from '../lib/checkpoint/checkpoint.js'
import { baseOfAdapter, withAdapter } from '../lib/checkpoint/adapter/adapter.js'
import { readTensors } from '../lib/checkpoint/tensors.js'
import { decode, encode } from '../lib/checkpoint/dtype.js'
import type { StoredDtype } from '../lib/native/spec.js'
import { readWeight, storedDtype } from '../lib/checkpoint/weights.js'
import { type CheckpointContent, type NamedTensor, writeCheckpoint } from '../lib/checkpoint/write.js'
import { mergeAdapter } from '../lib/models/merge-adapter.js'
import { type TinyAdapter, tinyAdapter, type TinyAdapterOptions, writeAdapter } from './fixtures/tiny-adapter.js'
import { tinyCheckpoint, type TinyCheckpointOptions } from './fixtures/tiny-checkpoint.js'
import { failure } from './support/engine.js'
import { temporaryFolder } from './support/tmp.js'

const folder = temporaryFolder()
let number = 0
const next = (what: string) => join(folder, `${what}-${number++}`)
const ATTENTION = ['q_proj', 'k_proj', 'v_proj', 'o_proj']
const LINEAR = [...ATTENTION, 'gate_proj', 'up_proj', 'down_proj']

async function written(base: CheckpointContent, adapter: TinyAdapter): Promise<{ model: string; adapter: string }> {
  const model = next('base')
  await writeCheckpoint(model, base)
  return { model, adapter: await writeAdapter(next('adapter'), adapter) }
}

async function tensorsOf(path: string): Promise<Map<string, { shape: number[]; dtype: string; values: Float32Array }>> {
  const read = new Map<string, { shape: number[]; dtype: string; values: Float32Array }>()
  for (const [name, entry] of await readTensors(path)) {
    const values = await readWeight({ ...entry, tensor: name, dtype: storedDtype(entry) })
    read.set(name, { shape: entry.shape, dtype: entry.dtype, values })
  }
  return read
}

const stored = (values: Float32Array, dtype: StoredDtype = 'f32') =>
  decode(encode(values, 0, values.length, dtype), dtype)

/** The base's tensors with the adapter merged into them, in double precision, from the numbers that the files hold. */
function expected(
  base: CheckpointContent,
  { tensors }: TinyAdapter,
  scale: (module: string) => number,
): Map<string, Float64Array> {
  const own = new Map(
    tensors.map((tensor) => [
      tensor.name.replace('base_model.model.', ''),
      { ...tensor, data: stored(tensor.data, tensor.dtype) },
    ]),
  )
  const result = new Map<string, Float64Array>()
  for (const { name, shape, ...tensor } of base.tensors) {
    const data = stored(tensor.data, base.dtype)
    const values = Float64Array.from(own.get(name)?.data ?? data)
    result.set(name, values)
    const module = name.replace(/\.(weight|bias)$/, '')
    const [rows, columns = 1] = shape as [number, number?]
    const s = scale(module)
    const bias = own.get(`${module}.lora_B.bias`)
    if (name.endsWith('.bias')) {
      for (const [i, value] of (bias?.data ?? []).entries()) values[i]! += s * value
      continue
    }
    const embedded = own.has(`${module}.lora_embedding_A`)
    const a = own.get(embedded ? `${module}.lora_embedding_A` : `${module}.lora_A.weight`)
    const b = own.get(embedded ? `${module}.lora_embedding_B` : `${module}.lora_B.weight`)
    if (a === undefined || b === undefined) continue
    const rank = a.shape[0]!
    const product = (row: number, column: number) => {
      let sum = 0
      for (let k = 0; k < rank; k++) sum += b.data[row * rank + k]! * a.data[k * a.shape[1]! + column]!
      return s * sum
    }
    const magnitude = own.get(`${module}.lora_magnitude_vector`)
    for (let i = 0; i < rows; i++) {
      const row = values.subarray(i * columns, (i + 1) * columns)
      for (let j = 0; j < columns; j++) row[j]! += embedded ? product(j, i) : product(i, j)
      if (magnitude === undefined) continue
      const factor = magnitude.data[i]! / Math.hypot(...row)
      for (let j = 0; j < columns; j++) row[j]! *= factor
    }
  }
  return result
}

async function checkMerged(
  model: TinyCheckpointOptions,
  options: TinyAdapterOptions,
  scale: (module: string) => number = () => 2,
): Promise<string> {
  const base = tinyCheckpoint(model)
  const adapter = tinyAdapter(base, options)
  const paths = await written(base, adapter)
  const out = next('merged')
  const { changed } = await mergeAdapter({ ...paths, out })
  const found = await tensorsOf(out)
  const before = await tensorsOf(paths.model)
  let different = 0
  for (const [name, values] of expected(base, adapter, scale)) {
    const tensor = found.get(name)
    assert.ok(tensor, name)
    assert.is(tensor.dtype, before.get(name)!.dtype)
    // Half a unit of the last place, and what f32 loses before.
    const unit = { F32: 0, BF16: 2 ** -8, F16: 2 ** -11 }[tensor.dtype]!
    for (const [i, value] of values.entries()) {
      assert.ok(
        Math.abs(tensor.values[i]! - value) <= unit * Math.abs(value) + 1e-6 * Math.max(1, Math.abs(value)),
        `${name} at ${i}: ${tensor.values[i]}, not ${value}`,
      )
    }
    if (tensor.values.some((value, i) => value !== before.get(name)!.values[i])) different++
  }
  assert.ok(different > 0)
  assert.is(changed, different)
  await openCheckpoint(out)
  return out
}

const merge = suite('merging')

merge('rank and scale of every module, by patterns and the root of the rank', async () => {
  const patterns = {
    rank_pattern: { down_proj: 2, 'layers.1.self_attn.q_proj': 6 },
    alpha_pattern: { 'layers.1.self_attn.q_proj': 3 },
  }
  const rank = (module: string) =>
    /down_proj$/.test(module) ? 2 : /layers\.1\.self_attn\.q_proj$/.test(module) ? 6 : 4
  const alpha = (module: string) => (/layers\.1\.self_attn\.q_proj$/.test(module) ? 3 : 8)
  await checkMerged({}, { targets: LINEAR, rank, config: patterns }, (module) => alpha(module) / rank(module))
  const rslora = { ...patterns, use_rslora: true }
  await checkMerged({}, { targets: LINEAR, rank, config: rslora }, (module) => alpha(module) / Math.sqrt(rank(module)))
})

merge('targets as a list, an expression and "all-linear"', async () => {
  await checkMerged({}, { targets: ['q_proj'], config: { target_modules: '.*\\.q_proj' } })
  await checkMerged({}, { targets: LINEAR, config: { target_modules: 'all-linear' } })
  await checkMerged({}, { targets: ['q_proj'], without: /layers\.0/, config: { layers_to_transform: [1] } })
  await checkMerged({}, { targets: LINEAR, without: /down_proj/, config: { exclude_modules: ['down_proj'] } })
})

merge('DoRA, biases and the embedding', async () => {
  await checkMerged({}, { targets: LINEAR, dora: true })
  await checkMerged({ family: 'qwen2' }, { targets: ['q_proj', 'v_proj'], bias: true })
  await checkMerged({}, { targets: ['embed_tokens', 'q_proj'] })
  await checkMerged({}, { targets: ['lm_head', 'q_proj'] })
})

merge('fused projections, experts and layer norms', async () => {
  await checkMerged({ family: 'phi3' }, { targets: ['qkv_proj', 'gate_up_proj', 'o_proj'] })
  await checkMerged({ family: 'phi3' }, { targets: ['qkv_proj'], dora: true })
  await checkMerged({ family: 'gpt_neox' }, { targets: ['query_key_value', 'dense'], bias: true })
  await checkMerged({ family: 'qwen3_moe' }, { targets: LINEAR })
})

merge('16-bit bases are rounded once', async () => {
  await checkMerged({ dtype: 'bf16' }, { targets: LINEAR, dtype: 'bf16' })
  await checkMerged({ dtype: 'f16' }, { targets: LINEAR, dtype: 'f16' })
})

merge("whole tensors take the place of the base's", async () => {
  const whole = ['model.embed_tokens.weight', 'lm_head.weight', 'model.layers.0.input_layernorm.weight']
  await checkMerged(
    {},
    { targets: ['q_proj'], whole, config: { modules_to_save: ['embed_tokens', 'lm_head', 'input_layernorm'] } },
  ).then(
    () => assert.unreachable('layer 1 has no saved norm'),
    (error: Error) => assert.match(error.message, /layers\.1\.input_layernorm\.weight/),
  )
  await checkMerged({}, { targets: ['q_proj'], whole, config: { modules_to_save: ['embed_tokens', 'lm_head'] } })
})

merge('a tied unembedding stays what it was when the embedding alone is trained', async () => {
  const base = tinyCheckpoint({ tied: true })
  const options = { targets: ['q_proj'], whole: ['model.embed_tokens.weight'] }
  const apart = tinyAdapter(base, { ...options, config: { modules_to_save: ['embed_tokens'] } })
  const table = base.tensors.find(({ name }) => name === 'model.embed_tokens.weight')!.data
  const saved = apart.tensors.find(({ name }) => name.endsWith('embed_tokens.weight'))!.data
  const out = next('merged')
  await mergeAdapter({ ...(await written(base, apart)), out })
  const merged = await tensorsOf(out)
  assert.equal(merged.get('lm_head.weight')!.values, table)
  assert.equal(merged.get('model.embed_tokens.weight')!.values, saved)
  assert.is((await openCheckpoint(out)).spec.tiedEmbedding, false)
  // What peft saves because the embedding was resized is the base's own parameter: both change.
  const both = next('merged')
  await mergeAdapter({ ...(await written(base, tinyAdapter(base, options))), out: both })
  const tied = await tensorsOf(both)
  assert.is(tied.has('lm_head.weight'), false)
  assert.equal(tied.get('model.embed_tokens.weight')!.values, saved)
  assert.is((await openCheckpoint(both)).spec.tiedEmbedding, true)
})

merge('a vocabulary that grew in training', async () => {
  const base = tinyCheckpoint()
  const adapter = tinyAdapter(base, { targets: ['q_proj'], whole: ['model.embed_tokens.weight', 'lm_head.weight'] })
  const grown = adapter.tensors.map((tensor) => {
    if (!/embed_tokens|lm_head/.test(tensor.name)) return tensor
    return { ...tensor, shape: [514, 32], data: Float32Array.from({ length: 514 * 32 }, (_, i) => i / 1e5) }
  })
  const paths = await written(base, { ...adapter, tensors: grown })
  const out = next('merged')
  await mergeAdapter({ ...paths, out })
  assert.is((await openCheckpoint(out)).spec.vocabSize, 514)
  const one = grown.filter(({ name }) => !name.endsWith('lm_head.weight'))
  const error = await failure(async () =>
    mergeAdapter({ ...(await written(base, { ...adapter, tensors: one })), out: next('merged') }),
  )
  assert.is(error.code, 'ERR_TENSOR_SHAPE')
})

merge('a classifier has its head and no unembedding, and shards merge as one file does', async () => {
  const options = {
    targets: LINEAR,
    head: 1,
    config: { task_type: 'SEQ_CLS', modules_to_save: ['classifier', 'score'] },
  }
  const base = tinyCheckpoint({})
  const adapter = tinyAdapter(base, options)
  const results: Map<string, { values: Float32Array }>[] = []
  for (const shardBytes of [undefined, 60_000]) {
    const out = next('merged')
    const { left } = await mergeAdapter({ ...(await written({ ...base, shardBytes }, adapter)), out })
    assert.equal(left, ['lm_head.weight'])
    const checkpoint = await openCheckpoint(out)
    assert.is(checkpoint.heads.length, 1)
    results.push(await tensorsOf(out))
  }
  assert.equal(
    results[0]!.get('score.weight')!.values,
    adapter.tensors.find(({ name }) => name.endsWith('score.weight'))!.data,
  )
  assert.equal([...results[0]!.keys()].sort(), [...results[1]!.keys()].sort())
  for (const [name, { values }] of results[0]!) assert.equal(values, results[1]!.get(name)!.values, name)
})

merge('an existing folder is left alone', async () => {
  const base = tinyCheckpoint()
  const paths = await written(base, tinyAdapter(base, { targets: ['q_proj'] }))
  const error = await failure(() => mergeAdapter({ ...paths, out: folder }))
  assert.is(error.code, 'ERR_IO')
  assert.match(error.message, /exists already/)
})

merge.run()

const bad = suite('bad adapters')

type Change = (adapter: TinyAdapter) => void
const Q = 'base_model.model.model.layers.0.self_attn.q_proj'
const find = ({ tensors }: TinyAdapter, name: string) => tensors.find((tensor) => tensor.name === name)!
const set =
  (config: Record<string, unknown>): Change =>
  (adapter) =>
    Object.assign(adapter.config, config)
const reshape =
  (name: string, shape: number[]): Change =>
  (adapter) => {
    const length = shape.reduce((product, size) => product * size, 1)
    Object.assign(find(adapter, name), { shape, data: new Float32Array(length) } satisfies Partial<NamedTensor>)
  }
const remove =
  (name: string): Change =>
  (adapter) => {
    adapter.tensors = adapter.tensors.filter((tensor) => tensor.name !== name)
  }
const add =
  (name: string, ...shape: number[]): Change =>
  (adapter) => {
    adapter.tensors.push({ name, shape, data: new Float32Array(shape.reduce((product, size) => product * size, 1)) })
  }

const KEY = 'adapter_config.json'
const FILE = 'adapter_model.safetensors'
const CASES: [what: string, change: Change, code: string, ...says: string[]][] = [
  ['another kind of adapter', set({ peft_type: 'ADALORA' }), 'ERR_CONFIG_INVALID', KEY, 'peft_type', 'ADALORA'],
  ['no kind', set({ peft_type: undefined }), 'ERR_CONFIG_INVALID', KEY, 'peft_type'],
  ['a rank of 0', set({ r: 0 }), 'ERR_CONFIG_INVALID', KEY, '"r"'],
  ['a rank that is text', set({ r: '8' }), 'ERR_CONFIG_INVALID', KEY, '"r"'],
  ['an alpha that is text', set({ lora_alpha: 'much' }), 'ERR_CONFIG_INVALID', KEY, 'lora_alpha'],
  [
    'a pattern that is no rank',
    set({ rank_pattern: { q_proj: 1.5 } }),
    'ERR_CONFIG_INVALID',
    KEY,
    'rank_pattern.q_proj',
  ],
  [
    'a pattern that is no expression',
    set({ alpha_pattern: { '(q_proj': 2 } }),
    'ERR_CONFIG_INVALID',
    KEY,
    'alpha_pattern',
  ],
  ['an unknown key', set({ use_newer_lora: true }), 'ERR_CONFIG_INVALID', KEY, 'use_newer_lora'],
  ['layers replicated', set({ layer_replication: [[0, 1]] }), 'ERR_CONFIG_INVALID', KEY, 'layer_replication'],
  [
    'parameters as targets',
    set({ target_parameters: ['mlp.experts'] }),
    'ERR_CONFIG_INVALID',
    KEY,
    'target_parameters',
  ],
  ['single tokens', set({ trainable_token_indices: [1, 2] }), 'ERR_CONFIG_INVALID', KEY, 'trainable_token_indices'],
  ['aLoRA', set({ alora_invocation_tokens: [1] }), 'ERR_CONFIG_INVALID', KEY, 'alora_invocation_tokens'],
  ['qalora', set({ use_qalora: true }), 'ERR_CONFIG_INVALID', KEY, 'use_qalora'],
  [
    'PiSSA',
    set({ init_lora_weights: 'pissa_niter_4' }),
    'ERR_CONFIG_INVALID',
    KEY,
    'init_lora_weights',
    'pissa_niter_4',
  ],
  ['OLoRA', set({ init_lora_weights: 'olora' }), 'ERR_CONFIG_INVALID', KEY, 'init_lora_weights'],
  ['CorDA', set({ init_lora_weights: 'corda' }), 'ERR_CONFIG_INVALID', KEY, 'init_lora_weights'],
  ['LoftQ', set({ init_lora_weights: 'loftq' }), 'ERR_CONFIG_INVALID', KEY, 'init_lora_weights'],
  [
    'layers for an expression',
    set({ target_modules: '.*q_proj', layers_to_transform: [0] }),
    'ERR_CONFIG_INVALID',
    KEY,
    'layers_to_transform',
  ],
  ['an unknown bias', set({ bias: 'some' }), 'ERR_CONFIG_INVALID', KEY, '"bias"'],
  ['the rank of another adapter', set({ r: 8 }), 'ERR_TENSOR_SHAPE', FILE, `${Q}.lora_A.weight`, 'rank 8'],
  [
    'a wrong rank in one tensor',
    reshape(`${Q}.lora_B.weight`, [32, 5]),
    'ERR_TENSOR_SHAPE',
    FILE,
    `${Q}.lora_B.weight`,
  ],
  ['another base', reshape(`${Q}.lora_A.weight`, [4, 48]), 'ERR_TENSOR_SHAPE', FILE, `${Q}.lora_A.weight`, '[4, 32]'],
  ['no B', remove(`${Q}.lora_B.weight`), 'ERR_TENSOR_MISSING', FILE, `${Q}.lora_B.weight`],
  [
    'a module without tensors',
    (adapter) => {
      remove(`${Q}.lora_A.weight`)(adapter)
      remove(`${Q}.lora_B.weight`)(adapter)
    },
    'ERR_TENSOR_MISSING',
    FILE,
    Q,
    'target_modules',
  ],
  ['a module that is not named', set({ target_modules: ['v_proj'] }), 'ERR_CONFIG_INVALID', FILE, Q, KEY],
  [
    'a module that the base lacks',
    add('base_model.model.model.layers.9.self_attn.q_proj.lora_A.weight', 4, 32),
    'ERR_CONFIG_INVALID',
    FILE,
    'layers.9',
  ],
  [
    'a name without the prefix',
    add('model.layers.0.self_attn.q_proj.lora_A.weight', 4, 32),
    'ERR_CONFIG_INVALID',
    FILE,
    'base_model.model.',
  ],
  ['a part of another method', add(`${Q}.lora_E`, 4), 'ERR_CONFIG_INVALID', FILE, `${Q}.lora_E`],
  [
    'single tokens in the file',
    add('base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta', 2, 32),
    'ERR_CONFIG_INVALID',
    FILE,
    'trainable_tokens_delta',
  ],
  [
    'a magnitude without DoRA',
    add(`${Q}.lora_magnitude_vector`, 32),
    'ERR_CONFIG_INVALID',
    FILE,
    `${Q}.lora_magnitude_vector`,
  ],
  ['DoRA without magnitudes', set({ use_dora: true }), 'ERR_TENSOR_MISSING', FILE, 'lora_magnitude_vector'],
  ['a bias that the settings lack', add(`${Q}.lora_B.bias`, 32), 'ERR_CONFIG_INVALID', FILE, `${Q}.lora_B.bias`],
  [
    'a bias that the base lacks',
    (adapter) => {
      set({ lora_bias: true })(adapter)
      for (const i of [0, 1])
        for (const part of ['q', 'v'])
          add(
            `${Q.replace('0', String(i)).replace('q_proj', `${part}_proj`)}.lora_B.bias`,
            part === 'q' ? 32 : 16,
          )(adapter)
    },
    'ERR_CONFIG_INVALID',
    FILE,
    `${Q}.lora_B.bias`,
  ],
  [
    'an unknown whole tensor',
    add('base_model.model.model.norm2.weight', 32),
    'ERR_CONFIG_INVALID',
    FILE,
    'model.norm2.weight',
  ],
  [
    'a whole tensor of another shape',
    add('base_model.model.model.norm.weight', 31),
    'ERR_TENSOR_SHAPE',
    FILE,
    'model.norm.weight',
    '[32]',
  ],
  [
    'a module that should be saved whole',
    set({ modules_to_save: ['embed_tokens'] }),
    'ERR_TENSOR_MISSING',
    FILE,
    'embed_tokens',
  ],
]

for (const [what, change, code, ...says] of CASES) {
  bad(what, async () => {
    const base = tinyCheckpoint()
    const adapter = tinyAdapter(base, { targets: ['q_proj', 'v_proj'] })
    change(adapter)
    const paths = await written(base, adapter)
    const error = await failure(async () => withAdapter(await openCheckpoint(paths.model), paths.adapter))
    assert.is(error.code, code, error.message)
    for (const text of says) assert.ok(error.message.includes(text), `${error.message}\nlacks ${text}`)
  })
}

bad('keys that are switched off or concern training alone are let be', async () => {
  const base = tinyCheckpoint()
  const adapter = tinyAdapter(base, { targets: ['q_proj'] })
  set({
    ...{
      use_newer_lora: false,
      another: null,
      third: {},
      fourth: [],
      lora_dropout: 0.3,
      loftq_config: {},
      revision: 'main',
    },
    ...{
      megatron_core: 'megatron.core',
      auto_mapping: { unsloth_fixed: true },
      init_lora_weights: 'gaussian',
      qalora_group_size: 16,
    },
  })(adapter)
  const paths = await written(base, adapter)
  const { notes } = await withAdapter(await openCheckpoint(paths.model), paths.adapter)
  assert.equal(notes, [])
  set({ fan_in_fan_out: true })(adapter)
  await writeAdapter(paths.adapter, adapter)
  assert.match((await withAdapter(await openCheckpoint(paths.model), paths.adapter)).notes.join(), /fan_in_fan_out/)
})

bad('no folder, no settings, no weights, no base', async () => {
  const base = tinyCheckpoint()
  const paths = await written(base, tinyAdapter(base, { targets: ['q_proj'] }))
  const checkpoint = await openCheckpoint(paths.model)
  assert.is((await failure(() => withAdapter(checkpoint, next('nothing')))).code, 'ERR_CHECKPOINT_NOT_FOUND')
  const named = await failure(() => baseOfAdapter(paths.adapter))
  assert.is(named.code, 'ERR_CHECKPOINT_NOT_FOUND')
  for (const text of ['some/base', '--model']) assert.ok(named.message.includes(text))
  rmSync(join(paths.adapter, FILE))
  const weights = await failure(() => withAdapter(checkpoint, paths.adapter))
  assert.ok(weights.message.includes(FILE), weights.message)
  writeFileSync(join(paths.adapter, KEY), '[]')
  assert.is((await failure(() => withAdapter(checkpoint, paths.adapter))).code, 'ERR_CONFIG_INVALID')
})

bad.run()
