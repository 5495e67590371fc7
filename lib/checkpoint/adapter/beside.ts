/**
 * LoRA adapters where a whole model is expected. Weights without the adapter that belongs to them would give other rewards in silence: an
 * error says what to do.
 */
import { join } from 'node:path'
import { ImplexError } from '../../core/errors.js'
import { quoted, readJsonIfPresent } from '../../core/files.js'

export const ADAPTER_CONFIG = 'adapter_config.json'
export const ADAPTER_WEIGHTS = 'adapter_model.safetensors'
const MERGE = 'merge it into its base model with `implex merge-adapter` and give the folder that it writes'
/** What to do with an adapter where a whole model is asked for. */
export const USE_ADAPTER = `give its base model there and the adapter with --adapter (option "adapter"), or ${MERGE}`

/** Whether a folder with these files holds an adapter. */
export function hasAdapter(names: readonly string[]): boolean {
  return names.some((name) => name === ADAPTER_CONFIG || /^adapter_model\.(safetensors|bin)$/.test(name))
}

/** What to say of a folder that holds an adapter and no whole weights; reads after the folder. */
export async function describeAdapter(folder: string): Promise<string> {
  const config = await readJsonIfPresent(join(folder, ADAPTER_CONFIG), 'ERR_CONFIG_INVALID').catch(() => undefined)
  const base = config?.base_model_name_or_path
  const of = typeof base === 'string' ? ` of the base model ${quoted(base)}` : ''
  return `is a LoRA adapter${of}, not a whole model: ${USE_ADAPTER}`
}

/** @throws ImplexError ERR_CONFIG_INVALID */
export function refuseAdapterBeside(folder: string, names: readonly string[]): void {
  if (!hasAdapter(names)) return
  const name =
    names.find((one) => one === ADAPTER_CONFIG) ?? (names.find((one) => one.startsWith('adapter_model.')) as string)
  const message =
    `${folder}: whole weights with an adapter beside them (${quoted(name)}), which transformers would add to them; ` +
    `move it into a folder of its own: without it these weights are used as they are, and --adapter DIR (option "adapter") adds it`
  throw new ImplexError('ERR_CONFIG_INVALID', message, { path: folder })
}
