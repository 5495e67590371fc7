/** GPT-NeoX and Pythia: layer norms with biases, one fused projection for q, k and v, an MLP without a gate, attention beside it. */
import { readRope } from '../rope.js'
import { limitPositions } from './decoder.js'
import { type Family, rule } from './family.js'
import { headDimOf, readActivation, readSizes } from './sizes.js'
import { refuseWindows } from './windows.js'

export const gptNeox: Family = {
  opens: 'GPT-NeoX 20B, Pythia, Dolly, OpenAssistant',
  classes: { causal: 'GPTNeoX' },
  refuses: 'windows',
  prefix: 'gpt_neox.',
  embedding: 'embed_in.weight',
  // transformers renames the first to the second when it loads.
  unembedding: ['embed_out.weight', 'lm_head.weight'],
  read(config, note) {
    const { layers: count, intermediateSize, ...sizes } = readSizes(config)
    const { maxPositions } = sizes
    const headDim = headDimOf(config, sizes.hiddenSize, sizes.heads)
    const rope = readRope(config, { headDim, maxPositions, partial: 0.25 })
    config.boolean('attention_bias', true)
    refuseWindows(config, count, maxPositions)
    const { rotaryDim, inverseFrequencies, scale } = rope
    return {
      family: 'gpt_neox',
      ...sizes,
      maxPositions: limitPositions(config, [rope], maxPositions, note),
      kvHeads: sizes.heads,
      headDim,
      norm: 'layer',
      normEps: config.positive('layer_norm_eps', 0.1, 1e-5),
      normOffset: 0,
      activation: readActivation(config, 'hidden_act', 'gelu'),
      gated: false,
      parallelResidual: config.boolean('use_parallel_residual', true),
      ropes: [{ rotaryDim, inverseFrequencies, scale }],
      ...{ embeddingScale: 1, residualScale: 1, logitScale: 1, logitSoftCap: 0 },
      layers: Array.from({ length: count }, () => ({
        preNorm: true,
        postNorm: false,
        window: 0,
        attentionScale: headDim ** -0.5,
        attentionSoftCap: 0,
        rope: 0,
        qkNorm: 'none',
        intermediateSize,
      })),
    }
  },
  final: ({ hiddenSize: d }) => [
    rule('final_norm', 'final_layer_norm.weight', d),
    rule('final_norm_bias', 'final_layer_norm.bias', d),
  ],
  layer(a, i, config) {
    const { hiddenSize: d, headDim } = a
    const f = a.layers[i]!.intermediateSize
    // Rows of the fused projection: for each head its q, then its k, then its v.
    const fused = (suffix: string) =>
      ['q', 'k', 'v'].map((part, i) => ({
        role: part + suffix,
        rows: { start: i * headDim, block: headDim, stride: 3 * headDim },
      }))
    const rules = [
      rule('attention_norm', 'input_layernorm.weight', d),
      rule('attention_norm_bias', 'input_layernorm.bias', d),
      { name: 'attention.query_key_value.weight', shape: [3 * d, d], parts: fused('') },
      rule('o', 'attention.dense.weight', d, d),
      rule('mlp_norm', 'post_attention_layernorm.weight', d),
      rule('mlp_norm_bias', 'post_attention_layernorm.bias', d),
      rule('up', 'mlp.dense_h_to_4h.weight', f, d),
      rule('up_bias', 'mlp.dense_h_to_4h.bias', f),
      rule('down', 'mlp.dense_4h_to_h.weight', d, f),
      rule('down_bias', 'mlp.dense_4h_to_h.bias', d),
    ]
    if (config.boolean('attention_bias', true)) {
      rules.push(
        { name: 'attention.query_key_value.bias', shape: [3 * d], parts: fused('_bias') },
        rule('o_bias', 'attention.dense.bias', d),
      )
    }
    return rules
  },
}
