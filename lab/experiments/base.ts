/**
 * The model that an experiment's trainings start from, where it needs tokens that the checkpoint does not have: a copy with rows for them, so
 * that policy and reference begin with the same ones.
 */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { withAddedTokens } from './added-tokens.js'

/** @returns `model` itself when it lacks none; else `folder`, written unless it is there */
export async function withTokens(model: string, tokens: readonly string[], folder: string): Promise<string> {
  if (tokens.length === 0) return model
  if (!existsSync(join(folder, 'config.json'))) await withAddedTokens(model, tokens, folder)
  return folder
}
