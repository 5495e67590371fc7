/**
 * Reads a command's options from a JSON file or from a run's config.json, without the part `run`.
 */
import { readFile } from 'node:fs/promises'
import { fileError } from '../lib/core/files.js'
import { isPlainObject } from '../lib/core/arguments.js'
import { UsageError } from './exit.js'

/** @throws UsageError if the file is not a JSON object; ImplexError ERR_IO if it cannot be read */
export async function readOptionsFile(file: string): Promise<Record<string, unknown>> {
  let text: string
  try {
    text = await readFile(file, 'utf8')
  } catch (error) {
    throw fileError(file, 'read', error)
  }
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (error) {
    throw new UsageError(`${file} is not valid JSON: ${(error as Error).message}`)
  }
  if (!isPlainObject(value)) throw new UsageError(`${file} must contain a JSON object of options`)
  const { run: _, ...options } = value
  return options
}

/** @throws UsageError that names every option that is not in `known` */
export function checkOptionNames(file: string, options: Record<string, unknown>, known: ReadonlySet<string>): void {
  const unknown = Object.keys(options).filter((name) => !known.has(name))
  if (unknown.length > 0) throw new UsageError(`${file}: no such option: ${unknown.join(', ')}`)
}
