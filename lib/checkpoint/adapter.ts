/**
 * LoRA adapters in a checkpoint's folder. They are not read yet, and weights without the adapter that belongs to them would give other
 * rewards in silence: an error says what to do.
 */
import { join } from 'node:path'
import { ImplexError } from '../core/errors.js'
import { quoted, readJsonIfPresent } from '../core/files.js'

const CONFIG = 'adapter_config.json'
const MERGE = "merge it into its base model first (PEFT's merge_and_unload) and give the folder that is saved then"

/** Whether a folder with these files holds an adapter. */
export function hasAdapter(names: readonly string[]): boolean {
  return names.some((name) => name === CONFIG || /^adapter_model\.(safetensors|bin)$/.test(name))
}

/** What to say of a folder that holds an adapter and no whole weights; reads after the folder. */
export async function describeAdapter(folder: string): Promise<string> {
  const config = await readJsonIfPresent(join(folder, CONFIG), 'ERR_CONFIG_INVALID').catch(() => undefined)
  const base = config?.base_model_name_or_path
  const of = typeof base === 'string' ? ` of the base model ${quoted(base)}` : ''
  return `is a LoRA adapter${of}, not a whole model: ${MERGE}`
}

/** @throws ImplexError ERR_CONFIG_INVALID */
export function refuseAdapterBeside(folder: string, names: readonly string[]): void {
  if (!hasAdapter(names)) return
  const name = names.find((one) => one === CONFIG) ?? (names.find((one) => one.startsWith('adapter_model.')) as string)
  const message =
    `${folder}: whole weights with an adapter beside them (${quoted(name)}), which transformers would add to them; ` +
    `${MERGE}, or move the adapter's files away to use the weights without it`
  throw new ImplexError('ERR_CONFIG_INVALID', message, { path: folder })
}
