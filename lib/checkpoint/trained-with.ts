/**
 * What implex writes of a training into the config.json of the model that comes out, under "implex": what a checkpoint's weights do not
 * show and scoring must repeat. Other programs keep the key and do not read it.
 */
import { join } from 'node:path'
import { isFolder } from '../core/files.js'
import { Config } from './config.js'

/** The two rules for the ids of prompt and response: see text/conversation.ts. */
export const BORDERS = ['whole', 'separate'] as const
export type Border = (typeof BORDERS)[number]

export interface TrainedWith {
  border?: Border
}

const KEY = 'implex'

/** The file that holds the record beside a LoRA adapter, whose config peft reads key by key. */
export const TRAINING_FILE = 'implex.json'

/** @throws ImplexError ERR_CONFIG_INVALID for a rule that is not known here */
export function trainedWith(config: Config): TrainedWith {
  const record = config.object(KEY)
  return record === undefined ? {} : readRecord(record)
}

/** The record beside the adapter in `folder`; {} where there is none. @throws ImplexError as trainedWith, ERR_IO */
export async function trainedBeside(folder: string): Promise<TrainedWith> {
  const file = join(folder, TRAINING_FILE)
  return (await isFolder(file)) === false ? readRecord(await Config.read(file)) : {}
}

function readRecord(record: Config): TrainedWith {
  const border = record.get('border')
  if (border === undefined) return {}
  const known = BORDERS.find((name) => name === border)
  if (known === undefined) throw record.unexpected('border', `one of ${BORDERS.map((name) => `"${name}"`).join(', ')}`)
  return { border: known }
}

/** Puts the record into a config.json that is about to be written, in place of an earlier one. */
export function recordTraining(config: Record<string, unknown>, record: TrainedWith): void {
  delete config[KEY]
  if (Object.keys(record).length > 0) config[KEY] = record
}
