/** What the configs of the families mean: windows, tables, scales, experts, text parts, and settings that are refused by name. */
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { type Checkpoint, openCheckpoint } from '../lib/checkpoint/checkpoint.js'
import { FAMILIES } from '../lib/checkpoint/families.js'
import { WRAPPERS } from '../lib/checkpoint/wrapper.js'
import { type CheckpointContent, writeCheckpoint } from '../lib/checkpoint/write.js'
import { readWeight } from '../lib/checkpoint/weights.js'
import type { LayerSpec, WeightSource } from '../lib/native/spec.js'
import {
  TINY_FAMILIES,
  type TinyCheckpointOptions,
  type TinyFamily,
  tinyCheckpoint,
} from './fixtures/tiny-checkpoint.js'
import { fuseExperts, wrap } from './fixtures/tiny-variants.js'
import { rejection } from './support/engine.js'
import { temporaryFolder } from './support/tmp.js'

const root = temporaryFolder()
let made = 0

async function open(content: CheckpointContent): Promise<Checkpoint> {
  const folder = join(root, String(made++))
  await writeCheckpoint(folder, content)
  return openCheckpoint(folder)
}

/** Long enough for the windows' default lengths to cut. */
const tiny = (options: TinyCheckpointOptions) =>
  open(tinyCheckpoint({ tokenizer: false, maxPositions: 8192, ...options }))

const layersOf = async (family: TinyFamily, config: Record<string, unknown>, more: TinyCheckpointOptions = {}) =>
  (await tiny({ family, config, layers: 4, ...more })).spec.layers
const windows = (layers: LayerSpec[]) => layers.map(({ window }) => window)
const tables = (layers: LayerSpec[]) => layers.map(({ rope }) => rope)

const families = suite('families')

families('every family has a tiny checkpoint, and the other way round', () => {
  assert.equal([...FAMILIES.keys()].sort(), [...TINY_FAMILIES].sort())
})

const types = (pattern: string) => [...pattern].map((one) => (one === 's' ? 'sliding_attention' : 'full_attention'))
const WINDOWS: [TinyFamily, Record<string, unknown>, number[]][] = [
  ['qwen2', { use_sliding_window: true, sliding_window: 16, max_window_layers: 1 }, [0, 16, 16, 16]],
  ['qwen3', { use_sliding_window: true, max_window_layers: 3 }, [0, 0, 0, 4096]],
  ['qwen3', { use_sliding_window: true, sliding_window: 16, layer_types: types('sffs') }, [16, 0, 0, 16]],
  ['qwen3_moe', { use_sliding_window: true, sliding_window: 16 }, [16, 16, 16, 16]],
  ['qwen3_moe', { use_sliding_window: false, sliding_window: 16 }, [0, 0, 0, 0]],
  ['mistral', { sliding_window: undefined }, [4096, 4096, 4096, 4096]],
  ['mistral', { sliding_window: null }, [0, 0, 0, 0]],
  ['mistral', { sliding_window: 8192 }, [0, 0, 0, 0]],
  ['mixtral', { sliding_window: 5 }, [5, 5, 5, 5]],
  ['ministral', { sliding_window: 5, layer_types: undefined }, [5, 5, 5, 5]],
  ['ministral', { sliding_window: 5, layer_types: types('fssf') }, [0, 5, 5, 0]],
  ['phi3', { sliding_window: undefined }, [0, 0, 0, 0]],
  ['phi3', { sliding_window: 2047 }, [2047, 2047, 2047, 2047]],
  ['gemma2', { sliding_window: undefined, layer_types: undefined }, [4096, 0, 4096, 0]],
  ['gemma2', { sliding_window: 5, layer_types: types('ffss') }, [0, 0, 5, 5]],
  ['gemma3_text', { sliding_window: 5, layer_types: undefined, sliding_window_pattern: 3 }, [5, 5, 0, 5]],
  ['gemma3_text', { sliding_window: 5, layer_types: undefined, _sliding_window_pattern: 2 }, [5, 0, 5, 0]],
  ['olmo3', { sliding_window: 5, layer_types: undefined }, [5, 5, 5, 0]],
  ['exaone4', { sliding_window: 5, layer_types: undefined, sliding_window_pattern: 2 }, [5, 0, 5, 0]],
  ['exaone4', { sliding_window: 5, layer_types: types('sssf'), sliding_window_pattern: 'LLLG' }, [5, 5, 5, 0]],
  ...[
    ['smollm3', { use_sliding_window: true, sliding_window: 5, no_rope_layers: [1, 0, 1, 0] }, [0, 5, 0, 5]] as [
      TinyFamily,
      Record<string, unknown>,
      number[],
    ],
  ],
]
for (const [family, config, expected] of WINDOWS) {
  families(`windows of ${family}: ${JSON.stringify(config)}`, async () => {
    assert.equal(
      windows(await layersOf(family, { layer_types: undefined, no_rope_layers: undefined, ...config })),
      expected,
    )
  })
}

families('tables of rotations by layer', async () => {
  assert.equal(tables(await layersOf('gemma3_text', { layer_types: types('sfss') })), [1, 0, 1, 1])
  assert.equal(tables(await layersOf('olmo3', { layer_types: types('ssfs') })), [1, 1, 0, 1])
  assert.equal(tables(await layersOf('smollm3', { no_rope_layers: [0, 1, 1, 0] })), [-1, 0, 0, -1])
  assert.equal(
    tables(await layersOf('smollm3', { no_rope_layers: undefined, no_rope_layer_interval: 3 })),
    [0, 0, -1, 0],
  )
  assert.equal(tables(await layersOf('exaone4', { layer_types: types('sfsf') })), [0, -1, 0, -1])
  const none = { layer_types: types('ffff'), sliding_window: null }
  assert.equal(tables(await layersOf('exaone4', none)), [0, 0, 0, 0])
  // The layers that slide by name turn by the table of those, however long the window is.
  const long = { layer_types: types('sfss'), sliding_window: 9000 }
  const layers = await layersOf('gemma3_text', long)
  assert.equal(
    [tables(layers), windows(layers)],
    [
      [1, 0, 1, 1],
      [0, 0, 0, 0],
    ],
  )
})

families('caps: null turns one off, an absent one has its default', async () => {
  const caps = async (family: TinyFamily, attention: unknown, logits: unknown) => {
    const { spec } = await tiny({
      family,
      config: { attn_logit_softcapping: attention, final_logit_softcapping: logits },
    })
    return [spec.layers[0]!.attentionSoftCap, spec.logitSoftCap]
  }
  assert.equal(await caps('gemma2', null, null), [0, 0])
  assert.equal(await caps('gemma2', undefined, undefined), [50, 30])
  assert.equal(await caps('gemma2', 7, 8.5), [7, 8.5])
  assert.equal(await caps('gemma3_text', null, 8.5), [0, 8.5])
})

families('experts: which layers have them, and as many as which key says', async () => {
  const counts = async (config: Record<string, unknown>) =>
    (await layersOf('qwen3_moe', config)).map(({ experts, intermediateSize }) => [
      experts?.count ?? 0,
      intermediateSize,
    ])
  const [dense, sparse] = [
    [0, 96],
    [5, 24],
  ]
  const fixed = { mlp_only_layers: [1] }
  assert.equal(await counts({ ...fixed }), [sparse, dense, sparse, sparse])
  // The tensors of the tiny checkpoint are those of the config above.
  const error = await rejection(counts({ ...fixed, decoder_sparse_step: 2 }))
  assert.match(error.message, /no tensor "model.layers.0.mlp.gate_proj.weight"/)
  const differ = await rejection(counts({ ...fixed, num_experts: 4, num_local_experts: 5 }))
  assert.match(differ.message, /"num_local_experts" differs from "num_experts"/)
  const { spec } = await tiny({ family: 'mixtral' })
  assert.equal(spec.layers[1]!.experts, { count: 4, perToken: 2, normalize: true })
})

async function valuesOf(source: WeightSource): Promise<number[]> {
  const all = await readWeight(source)
  const { rows, shape } = source
  if (rows === undefined) return [...all]
  const columns = shape[1]!
  return [...all.subarray(rows.start * columns, (rows.start + rows.block) * columns)]
}

for (const [family, names, block] of [
  ['qwen3_moe', ['gate_proj', 'up_proj', 'down_proj'], 'mlp'],
  ['mixtral', ['w1', 'w3', 'w2'], 'block_sparse_moe'],
] as [TinyFamily, [string, string, string], string][]) {
  families(`${family}: experts in one tensor are the same as one by one`, async () => {
    const content = tinyCheckpoint({ family, tokenizer: false })
    const [apart, together] = [await open(content), await open(fuseExperts(content, names, block))]
    const roles = ({ spec }: Checkpoint) => new Map(spec.weights.map((weight) => [weight.role, weight]))
    const [one, other] = [roles(apart), roles(together)]
    assert.equal([...one.keys()].sort(), [...other.keys()].sort())
    for (const [role, source] of one) assert.equal(await valuesOf(other.get(role)!), await valuesOf(source), role)
    assert.ok(together.spec.weights.some(({ tensor }) => tensor.endsWith('mlp.experts.gate_up_proj')))
  })
}

families.run()

const wrappers = suite('text parts of vision-language models')

const TEXT: Record<string, TinyFamily> = {
  gemma3: 'gemma3_text',
  mistral3: 'mistral',
  llava: 'llama',
  llava_next: 'llama',
  llava_onevision: 'qwen2',
  internvl: 'qwen2',
}

for (const outer of WRAPPERS.keys()) {
  const family = TEXT[outer]!
  for (const version of [4, 5] as const) {
    wrappers(`${outer}, transformers ${version}: the text part is opened as if it were alone`, async () => {
      const content = tinyCheckpoint({ family, tokenizer: false, style: version })
      const [alone, inside] = [await open(content), await open(wrap(content, outer, version))]
      const bare = ({ spec }: Checkpoint) => ({
        ...spec,
        weights: spec.weights.map(({ role, shape }) => ({ role, shape })),
      })
      assert.equal(bare(inside), bare(alone))
      assert.is(inside.family, family)
      assert.is(inside.unread.length, 1)
      assert.is(inside.notes.length, 1)
      assert.match(
        inside.notes[0]!,
        new RegExp(`of this ${outer} model .* the text part \\(${family}\\) alone; 1 tensors such as`),
      )
    })
  }
}

wrappers('keys that the text part leaves out have the defaults of its family', async () => {
  const content = tinyCheckpoint({ family: 'gemma3_text', tokenizer: false, heads: 8, headDim: 256, vocabSize: 512 })
  const { config, ...rest } = wrap(content, 'gemma3', 5)
  const {
    num_attention_heads: _,
    num_key_value_heads: __,
    head_dim: ___,
    ...text
  } = config.text_config as Record<string, unknown>
  const { spec } = await open({ ...rest, config: { ...config, text_config: text } })
  assert.equal([spec.heads, spec.kvHeads, spec.headDim], [8, 4, 256])
})

wrappers('a tensor of the text part that nothing asks for is refused, one beside it is not', async () => {
  const content = wrap(tinyCheckpoint({ family: 'llama', tokenizer: false }), 'llava', 5)
  const extra = { name: 'model.language_model.layers.9.mlp.up_proj.weight', shape: [1], data: new Float32Array(1) }
  const error = await rejection(open({ ...content, tensors: [...content.tensors, extra] }))
  assert.match(error.message, /has no tensor "model.language_model.layers.9.mlp.up_proj.weight"/)
})

wrappers('a text part of another family is refused by name', async () => {
  const { config, ...rest } = wrap(tinyCheckpoint({ tokenizer: false }), 'llava', 5)
  const error = await rejection(open({ ...rest, config: { ...config, text_config: { model_type: 'mamba' } } }))
  assert.match(
    error.message,
    /the text part of "llava": model_type "mamba" is not supported; supported families: llama/,
  )
})

wrappers.run()
