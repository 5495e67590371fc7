/**
 * The head that an explicit reward model starts from.
 */
import { join } from 'node:path'
import type { Checkpoint } from '../checkpoint/checkpoint.js'
import { Config } from '../checkpoint/config.js'
import { textConfig } from '../checkpoint/wrapper.js'
import { givenHead, hasTrainableHead } from '../models/open.js'
import { Random, STREAMS } from '../core/random.js'

/** transformers' default, for a config that does not say. */
const INITIALIZER_RANGE = 0.02

export interface InitialHead {
  /** [hiddenSize]; undefined: the checkpoint's own `score.weight`. */
  weight?: Float32Array
  origin: 'given' | 'checkpoint' | 'random'
}

/**
 * The head given, else the checkpoint's own, else a random one: normal with mean 0 and the config's `initializer_range` as its deviation,
 * as transformers makes one.
 * @throws RangeError for a head of the wrong size, ImplexError as readHead
 */
export async function initialHead(
  checkpoint: Checkpoint,
  given: string | Float32Array | undefined,
  seed: number,
): Promise<InitialHead> {
  if (given !== undefined) return { weight: await givenHead(checkpoint, given), origin: 'given' }
  if (hasTrainableHead(checkpoint)) return { origin: 'checkpoint' }
  const { path, spec } = checkpoint
  const config = textConfig(await Config.read(join(path, 'config.json')))
  const deviation = config.positive('initializer_range', 100, INITIALIZER_RANGE)
  const random = Random.seeded(seed, STREAMS.head)
  return {
    weight: Float32Array.from({ length: spec.hiddenSize }, () => deviation * random.normal()),
    origin: 'random',
  }
}
