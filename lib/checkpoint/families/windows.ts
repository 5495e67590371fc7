/**
 * Sliding windows: which layers have one, and how long it is. A window as long as the context cuts nothing and counts as none.
 */
import type { Config } from '../config.js'
import { quoted } from '../../core/files.js'
import { MAX } from './sizes.js'

export interface WindowRule {
  /** Whether layer i has the window in a config without `layer_types`. */
  slides(i: number, config: Config): boolean
  /** Length in a config without `sliding_window`. Absent: no window. */
  length?: number
  /** The family has `use_sliding_window`, and without it no window is used. */
  flag?: boolean
  /** `layer_types` does not choose: every layer has the window or none has it. */
  everyLayer?: boolean
  /** Further keys of the family's that tell which layers have it. */
  keys?: readonly string[]
}

export interface Windows {
  /** By layer; 0: none. */
  lengths: number[]
  /** By layer; those that have a window by name, however long it is. */
  sliding: boolean[]
}

/** @throws ImplexError ERR_CONFIG_INVALID naming the key */
export function readWindows(config: Config, layers: number, maxPositions: number, rule: WindowRule): Windows {
  config.know('layer_types', 'use_sliding_window', 'sliding_window', ...(rule.keys ?? []))
  const types = readLayerTypes(config, layers)
  const used = rule.flag !== true || config.boolean('use_sliding_window', false)
  const length = readLength(config, used ? rule.length : undefined)
  const sliding = Array.from({ length: layers }, (_, i) =>
    types === undefined ? used && length !== undefined && rule.slides(i, config) : types[i] === 'sliding_attention',
  )
  if (sliding.includes(true)) {
    if (length === undefined)
      throw config.error('layer_types', 'has "sliding_attention", but "sliding_window" is not set')
    if (!used && length < maxPositions)
      throw config.error('layer_types', 'has "sliding_attention", but "use_sliding_window" is not true')
  }
  const cuts = used && length !== undefined && length < maxPositions
  if (rule.everyLayer === true && cuts && sliding.includes(false)) {
    throw config.error(
      'layer_types',
      `has layers without a window, but in this family "sliding_window" (${length}) is every layer's`,
    )
  }
  const lengths = sliding.map((slides) => (slides && length! < maxPositions ? length! : 0))
  return { lengths, sliding }
}

/** No layer has a window, and a config that asks for one is refused. */
export function refuseWindows(config: Config, layers: number, maxPositions: number): Windows {
  config.know('layer_types', 'use_sliding_window', 'sliding_window', 'max_window_layers')
  const types = readLayerTypes(config, layers)
  const tokens = readLength(config, undefined)
  const cuts = tokens !== undefined && tokens < maxPositions
  if (types?.includes('sliding_attention') && (cuts || tokens === undefined))
    throw config.error('layer_types', 'has "sliding_attention", which this family does not have')
  if (cuts && config.boolean('use_sliding_window', types === undefined))
    throw config.error('sliding_window', `is ${tokens}, but this family has no windows`)
  return { lengths: new Array(layers).fill(0), sliding: new Array(layers).fill(false) }
}

function readLayerTypes(config: Config, layers: number): string[] | undefined {
  const types = config.strings('layer_types')
  const other = types?.find((type) => type !== 'full_attention' && type !== 'sliding_attention')
  if (other !== undefined) {
    const supported = 'supported: "full_attention", "sliding_attention"'
    throw config.error('layer_types', `has ${quoted(other)}, which is not supported; ${supported}`)
  }
  if (types !== undefined && types.length !== layers)
    throw config.error('layer_types', `must have one entry for each of the ${layers} layers; it has ${types.length}`)
  return types
}

function readLength(config: Config, fallback: number | undefined): number | undefined {
  if (config.isNull('sliding_window')) return undefined
  return config.has('sliding_window') ? config.integer('sliding_window', 1, MAX.positions) : fallback
}
