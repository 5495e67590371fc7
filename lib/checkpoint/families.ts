/**
 * The model families. A new one is one entry in FAMILIES, most often a combination of what decoder.ts has; nothing else knows its name.
 */
import type { Family } from './families/family.js'
import { gemma, gemma2, gemma3Text } from './families/gemma.js'
import { gptNeox } from './families/gpt-neox.js'
import * as like from './families/llama-like.js'
import { exaone4, olmo2, olmo3 } from './families/olmo.js'

export type { Alternatives, Architecture, Family, LayerRules, TensorPart, TensorRule } from './families/family.js'
export { usualRules } from './families/family.js'

/** By `model_type` of config.json. */
export const FAMILIES: ReadonlyMap<string, Family> = new Map([
  ['llama', like.llama],
  ['qwen2', like.qwen2],
  ['qwen3', like.qwen3],
  ['gpt_neox', gptNeox],
  ['mistral', like.mistral],
  ['ministral', like.ministral],
  ['ministral3', like.ministral3],
  ['gemma', gemma],
  ['gemma2', gemma2],
  ['gemma3_text', gemma3Text],
  ['phi3', like.phi3],
  ['olmo2', olmo2],
  ['olmo3', olmo3],
  ['exaone4', exaone4],
  ['smollm3', like.smollm3],
  ['granite', like.granite],
  ['qwen3_moe', like.qwen3Moe],
  ['mixtral', like.mixtral],
])
