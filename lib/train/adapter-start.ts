/**
 * The matrices that a LoRA adapter starts from, as peft makes them: A uniform within ±1/√inputs (Kaiming's rule with a = √5), B zero, so that
 * the model starts as its base. The engine reads weights from files: these lie in the run's folder until it has read them.
 */
import type { Checkpoint } from '../checkpoint/checkpoint.js'
import { readHeader } from '../checkpoint/safetensors.js'
import { type StreamedTensor, writeSafetensors } from '../checkpoint/write.js'
import { Random, STREAMS } from '../core/random.js'
import type { ModelSpec, WeightSource } from '../native/spec.js'
import {
  ADAPTED,
  ADAPTED_ROLE,
  adaptedModules,
  type AdaptedModule,
  type AdaptedPart,
  adapterSpecs,
  type LoraSettings,
} from './adapter-modules.js'
import type { TrainSettings } from './options.js'

/** The adapter that a run trains. */
export interface NewAdapter {
  settings: LoraSettings
  modules: AdaptedModule[]
}

/** Undefined for a run that trains the model itself. Errors as adaptedModules. */
export async function adapterOf(
  checkpoint: Checkpoint,
  {
    loraRank,
    loraAlpha,
    loraTargets,
    rslora,
  }: Pick<TrainSettings, 'loraRank' | 'loraAlpha' | 'loraTargets' | 'rslora'>,
): Promise<NewAdapter | undefined> {
  if (loraRank === undefined || loraAlpha === undefined) return undefined
  return {
    settings: { loraRank, loraAlpha, loraTargets, rslora },
    modules: await adaptedModules(checkpoint, loraTargets),
  }
}

/**
 * `spec` with the adapter as it starts.
 * @param file for the initial matrices; to be removed once the engine has read them
 * @throws ImplexError ERR_DISK_FULL, ERR_IO
 */
export async function withNewAdapter(
  spec: ModelSpec,
  { modules, settings }: NewAdapter,
  seed: number,
  file: string,
): Promise<ModelSpec> {
  const { loraRank: rank } = settings
  const parts = modules.flatMap((module) => module.parts)
  const tensors = parts.flatMap((part): StreamedTensor[] => [
    { name: `${part.role}.lora_a`, shape: [rank, part.inputs], data: async () => initialA(part, rank, seed) },
    {
      name: `${part.role}.lora_b`,
      shape: [part.outputs, rank],
      data: async () => new Float32Array(part.outputs * rank),
    },
  ])
  await writeSafetensors(file, tensors)
  const entries = await readHeader(file)
  const weights = tensors.map(({ name }): WeightSource => {
    const { offset, bytes, shape } = entries.get(name)!
    return { role: name, tensor: name, file, offset, bytes, dtype: 'f32', shape }
  })
  return { ...spec, adapters: adapterSpecs(modules, settings), weights: [...spec.weights, ...weights] }
}

/** Each projection has a random stream of its own: what it starts from does not depend on which others are trained. */
function initialA({ role, inputs }: AdaptedPart, rank: number, seed: number): Float32Array {
  const [, layer, name] = ADAPTED_ROLE.exec(role)!
  const place = Number(layer) * 8 + ADAPTED.indexOf(name!)
  const random = Random.seeded(seed, STREAMS.adapter + place)
  const bound = 1 / Math.sqrt(inputs)
  return Float32Array.from({ length: rank * inputs }, () => bound * (2 * random.unit() - 1))
}
