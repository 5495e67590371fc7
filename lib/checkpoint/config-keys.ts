/**
 * No setting that changes numbers is ignored. A key of config.json is read, or known to change nothing, or refused.
 *
 * Trainers put keys of their own into a config, so a key that nobody knows is judged by its name: one that has a word of the computation in
 * it ("attention", "norm", "scale", …) and is not switched off is refused; any other is about the file, and left alone.
 */
import type { Config } from './config.js'

/** Known to change nothing that implex computes, though many have a word of the computation in their name. */
const HARMLESS = new Set([
  // Read by other parts of implex.
  ...['architectures', 'tie_word_embeddings', 'id2label', 'label2id', 'num_labels', 'value_head_prefix', 'implex'],
  // About training: dropout, initial weights and further losses.
  ...['attention_dropout', 'hidden_dropout', 'hidden_dropout_prob', 'attention_probs_dropout_prob', 'embd_pdrop'],
  ...['resid_pdrop', 'attn_pdrop', 'residual_dropout', 'embedding_dropout', 'classifier_dropout', 'initializer_range'],
  ...[
    'initializer_factor',
    'router_aux_loss_coef',
    'router_z_loss_coef',
    'router_jitter_noise',
    'output_router_logits',
  ],
  ...['gradient_checkpointing', 'use_reentrant', 'rescale_prenorm_residual', 'embedding_initializer_range'],
  // How other programs compute the same.
  ...['attn_implementation', '_attn_implementation', '_attn_implementation_autoset', '_attn_implementation_internal'],
  ...['_flash_attn_2_enabled', 'use_flash_attn', 'use_flash_attention', 'use_flash_attention_2', 'flash_attn'],
  ...['_experts_implementation', 'experts_implementation', 'chunk_size_feed_forward', 'pretraining_tp', 'pruned_heads'],
  ...[
    'output_attentions',
    'output_hidden_states',
    'cross_attention_hidden_size',
    'add_cross_attention',
    'tf_legacy_loss',
  ],
  ...['base_model_tp_plan', 'base_model_pp_plan', 'base_model_ep_plan', 'keys_to_ignore_at_inference'],
  ...['pad_head_dim_to_multiple_of', 'attention_invert', 'gating_hidden_dim', 'gating_n_hidden', 'gating_temperature'],
  // Lengths that a tokenizer or a server goes by; max_position_embeddings is the one that counts.
  ...['max_sequence_length', 'max_seq_len', 'seq_length', 'seq_len', 'model_max_length', 'tokenizer_model_max_length'],
  // Generation, as transformers 4 wrote it.
  ...['temperature', 'repetition_penalty', 'encoder_no_repeat_ngram_size', 'no_repeat_ngram_size', 'bad_words_ids'],
  ...['remove_invalid_values', 'exponential_decay_length_penalty', 'length_penalty', 'diversity_penalty'],
])

/** Ids of tokens, and names that begin with what says that the key is a head's or a trainer's. */
const HARMLESS_PATTERN =
  /(_token_(id|index)s?|_dropout|_dropout_(rate|prob))$|^(reward|rm|value_head|v_head|score|classifier|unsloth|lora|peft|summary|vision|image|video|audio)(_|$)/

const COMPUTATION = new Set([
  ...[
    'attention',
    'attn',
    'alibi',
    'bidirectional',
    'causal',
    'sliding',
    'window',
    'windows',
    'chunk',
    'chunked',
    'sink',
    'sinks',
  ],
  ...['rope', 'rotary', 'nope', 'theta', 'position', 'positions', 'positional', 'yarn', 'ntk', 'mrope', 'longrope'],
  ...['norm', 'norms', 'layernorm', 'rmsnorm', 'prenorm', 'postnorm', 'eps', 'epsilon', 'qk', 'qkv', 'kv'],
  ...[
    'scale',
    'scales',
    'scaling',
    'multiplier',
    'factor',
    'scalar',
    'mup',
    'logit',
    'logits',
    'clip',
    'cap',
    'capping',
  ],
  ...[
    'softcap',
    'softcapping',
    'bias',
    'biases',
    'activation',
    'act',
    'residual',
    'parallel',
    'head',
    'heads',
    'layer',
  ],
  ...['layers', 'hidden', 'embedding', 'embeddings', 'embed', 'intermediate', 'ffn', 'mlp', 'gate', 'gating', 'glu'],
  ...['expert', 'experts', 'moe', 'router', 'routed', 'sparse', 'dense', 'latent', 'mtp', 'predict', 'temperature'],
])

/** Words that name a factor, for which 1 changes nothing. */
const FACTORS = new Set(['scale', 'scaling', 'multiplier', 'factor'])

/** Whether a key that nobody asked for changes numbers, as far as its name and value tell. */
function matters(key: string, value: unknown): boolean {
  if (HARMLESS.has(key) || HARMLESS_PATTERN.test(key)) return false
  const words = key.toLowerCase().split(/[_\W]+/)
  if (!words.some((word) => COMPUTATION.has(word))) return false
  if (value === false || value === 0 || value === '' || value === 'none') return false
  if (value === 1 && words.some((word) => FACTORS.has(word))) return false
  return typeof value !== 'object' || Object.keys(value as object).length > 0
}

/** @throws ImplexError ERR_CONFIG_INVALID naming the first key that would change numbers and that the family does not read */
export function refuseUnknown(config: Config, family: string, unused: readonly string[] = []): void {
  config.know(...unused)
  for (const key of config.unknown()) {
    if (!matters(key, config.get(key))) continue
    const advice =
      'implex would compute something else than the model; if the key is of no consequence, remove it from the config'
    throw config.error(key, `is not supported for ${family}: ${advice}`)
  }
}
