/**
 * adapter_config.json as peft writes it, key by key: what counts is read, what concerns training or memory alone is let be, and whatever
 * else would change a number is refused by name.
 */
import { join } from 'node:path'
import { Config } from '../config.js'
import { ADAPTER_CONFIG } from './beside.js'

/** A key of rank_pattern or alpha_pattern, and its number. */
export type AdapterPattern = [key: string, value: number]

export interface AdapterSettings {
  /** adapter_config.json. */
  file: string
  rank: number
  alpha: number
  /** In the file's order: the first one that fits a module counts. */
  rankPattern: AdapterPattern[]
  alphaPattern: AdapterPattern[]
  /** The scale is alpha / √rank instead of alpha / rank. */
  rankStabilized: boolean
  dora: boolean
  /** Every B has a bias. */
  loraBias: boolean
  /** Names or their ends; or one regular expression; absent where the file says nothing. */
  targets?: string[] | string
  excluded: string[] | string
  /** Layers that the names of `targets` count for; absent: all. */
  layers?: number[]
  layersPattern: string[]
  /** Modules that are saved whole. */
  modulesToSave: string[]
  /** An embedding and an unembedding that the base ties stay tied. */
  tiesWeights: boolean
  /** As in the file: a folder, or a name on the Hugging Face Hub. */
  base?: string
  taskType?: string
  /** As of a Checkpoint. */
  notes: string[]
}

const MAX_RANK = 1 << 16
const MAX_LAYER = 1 << 16

/** Decide nothing of what the finished adapter computes. */
const HARMLESS = [
  ...['auto_mapping', 'revision', 'inference_mode', 'peft_version', 'megatron_core', 'lora_dropout', 'runtime_config'],
  // Settings of initial values, for which init_lora_weights is judged, and of layers that qalora would need.
  ...['loftq_config', 'eva_config', 'corda_config', 'lora_ga_config', 'qalora_group_size'],
  // Written by ms-swift, about training.
  ...['lora_dtype', 'lorap_lr_ratio', 'lorap_emb_lr'],
]

/** Initial values that leave the base as it was; all others take something out of it, which peft does again when it loads. */
const PLAIN_STARTS: readonly unknown[] = [true, false, 'gaussian', 'eva', 'orthogonal']

/** @throws ImplexError ERR_CHECKPOINT_NOT_FOUND without the file; ERR_CONFIG_INVALID naming the key */
export async function readAdapterSettings(folder: string): Promise<AdapterSettings> {
  const config = await Config.read(join(folder, ADAPTER_CONFIG))
  const type = config.string('peft_type')
  if (type !== 'LORA') throw config.error('peft_type', `${JSON.stringify(type)} is not supported; implex reads "LORA"`)
  config.know(...HARMLESS)
  const start = config.get('init_lora_weights') ?? true
  if (!PLAIN_STARTS.includes(start)) {
    throw config.error(
      'init_lora_weights',
      `${JSON.stringify(start)} takes a part out of the base's weights, which implex does not; convert the adapter with ` +
        "save_pretrained's path_initial_model_for_weight_conversion",
    )
  }
  const notes: string[] = []
  if (config.boolean('fan_in_fan_out', false))
    notes.push(`${config.file}: "fan_in_fan_out" is ignored, as in peft, because the base has linear layers only`)
  const bias = config.string('bias', 'none')
  if (!['none', 'all', 'lora_only'].includes(bias)) throw config.unexpected('bias', '"none", "all" or "lora_only"')
  const targets = namesOrPattern(config, 'target_modules')
  const layers = readLayers(config)
  const layersPattern = names(config, 'layers_pattern')
  if (typeof targets === 'string') {
    if (layers !== undefined) throw config.error('layers_to_transform', 'is for a list of target_modules only')
    if (layersPattern.length > 0) throw config.error('layers_pattern', 'is for a list of target_modules only')
  }
  const settings: AdapterSettings = {
    file: config.file,
    rank: config.integer('r', 1, MAX_RANK, 8),
    alpha: number(config, 'lora_alpha', 8),
    rankPattern: patterns(config, 'rank_pattern', (values, key) => values.integer(key, 1, MAX_RANK)),
    alphaPattern: patterns(config, 'alpha_pattern', (values, key) => number(values, key)),
    rankStabilized: config.boolean('use_rslora', false),
    dora: config.boolean('use_dora', false),
    loraBias: config.boolean('lora_bias', false),
    ...(targets === undefined ? {} : { targets }),
    excluded: namesOrPattern(config, 'exclude_modules') ?? [],
    ...(layers === undefined ? {} : { layers }),
    layersPattern,
    modulesToSave: config.strings('modules_to_save') ?? [],
    tiesWeights: config.boolean('ensure_weight_tying', false),
    ...(config.has('base_model_name_or_path') ? { base: config.string('base_model_name_or_path') } : {}),
    ...(config.has('task_type') ? { taskType: config.string('task_type') } : {}),
    notes,
  }
  if (settings.loraBias && settings.dora) throw config.error('lora_bias', 'and use_dora exclude each other')
  refuseOthers(config)
  return settings
}

/** Keys that nobody asked for: what is switched off changes nothing. */
function refuseOthers(config: Config): void {
  for (const key of config.unknown()) {
    const value = config.get(key)
    if (value === false || value === '') continue
    if (typeof value === 'object' && Object.keys(value as object).length === 0) continue
    throw config.error(
      key,
      'is not supported for adapters, and rewards without it would be other ones; if it is of no consequence, remove it from the file',
    )
  }
}

function number(config: Config, key: string, fallback?: number): number {
  const value = config.get(key) ?? fallback
  if (value === undefined) throw config.error(key, 'is missing')
  if (typeof value !== 'number' || !Number.isFinite(value)) throw config.unexpected(key, 'a number')
  return value
}

function patterns(config: Config, key: string, read: (values: Config, key: string) => number): AdapterPattern[] {
  const values = config.object(key)
  return values === undefined ? [] : Object.keys(values.values).map((name) => [name, read(values, name)])
}

function names(config: Config, key: string): string[] {
  const value = namesOrPattern(config, key)
  return typeof value === 'string' ? (value === '' ? [] : [value]) : (value ?? [])
}

function namesOrPattern(config: Config, key: string): string[] | string | undefined {
  const value = config.get(key)
  if (value === undefined || typeof value === 'string') return value
  if (!Array.isArray(value)) throw config.unexpected(key, 'a string or a list of strings')
  return config.strings(key)
}

function readLayers(config: Config): number[] | undefined {
  const key = 'layers_to_transform'
  const layers = Array.isArray(config.get(key))
    ? config.integers(key, 0, MAX_LAYER)
    : config.has(key)
      ? [config.integer(key, 0, MAX_LAYER)]
      : undefined
  return layers?.length === 0 ? undefined : layers
}
