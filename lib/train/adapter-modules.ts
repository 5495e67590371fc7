/**
 * Which projections of a model a LoRA adapter is trained for: the modules that peft would find under the names given, and the engine's roles
 * that each is made of.
 */
import { join } from 'node:path'
import type { Checkpoint } from '../checkpoint/checkpoint.js'
import { textValues } from '../checkpoint/wrapper.js'
import { outOfRange } from '../core/arguments.js'
import { ImplexError } from '../core/errors.js'
import { readJsonFile } from '../core/files.js'
import type { AdapterSpec, RowSelection, WeightSource } from '../native/spec.js'
import { ALL_LINEAR, type TrainSettings } from './options.js'
import { savedNames } from './runs/saved-names.js'

/** A projection that the engine adapts. */
export interface AdaptedPart {
  role: string
  outputs: number
  inputs: number
  /** Which rows of the module are its own; absent: all. */
  rows?: RowSelection
}

/** A linear layer as peft knows it: `model.layers.0.self_attn.q_proj`. A fused one has several parts. */
export interface AdaptedModule {
  name: string
  parts: AdaptedPart[]
}

/** The projections that have an adapter in the engine, in the order in which their random streams are numbered. */
export const ADAPTED: readonly string[] = ['q', 'k', 'v', 'o', 'gate', 'up', 'down']
const MLP = ['gate', 'up', 'down']
export const ADAPTED_ROLE = new RegExp(`^layers\\.(\\d+)\\.(${ADAPTED.join('|')})$`)

/**
 * The modules that `targets` names, in the model's order.
 * @throws RangeError for a name that no projection has; ImplexError ERR_CONFIG_INVALID for a model that cannot have an adapter
 */
export async function adaptedModules(checkpoint: Checkpoint, targets: readonly string[]): Promise<AdaptedModule[]> {
  const file = join(checkpoint.path, 'config.json')
  if (textValues(await readJsonFile(file, 'ERR_CONFIG_INVALID')) !== undefined) {
    throw new ImplexError(
      'ERR_CONFIG_INVALID',
      `${file}: an adapter for the text part of a vision-language model is not supported; save the text part as a model of its own, or ` +
        'train without --lora-rank (option loraRank)',
      { path: file },
    )
  }
  const all = linearModules(checkpoint)
  if (targets.includes(ALL_LINEAR) && all.length > 0) return all
  const ends = [...new Set(all.map(lastName))]
  for (const target of targets) {
    if (all.some((module) => isNamed(module, target))) continue
    const known = ends.length === 0 ? 'left out with loraRank: no projection can have an adapter' : ends.join(', ')
    throw outOfRange('loraTargets', `${ALL_LINEAR} or some of the projections of ${checkpoint.path}: ${known}`, target)
  }
  return all.filter((module) => targets.some((target) => isNamed(module, target)))
}

/** peft's rule for a list of names. */
function isNamed({ name }: AdaptedModule, target: string): boolean {
  return name === target || name.endsWith(`.${target}`)
}

export function lastName({ name }: AdaptedModule): string {
  return name.slice(name.lastIndexOf('.') + 1)
}

/**
 * Experts are not among them: in transformers 5 they are no linear layers. In a model that has some, peft takes the names of a dense MLP's
 * projections for those of experts, so there the attention alone is adapted.
 */
function linearModules({ family, spec }: Checkpoint): AdaptedModule[] {
  const nameOf = savedNames(family, spec)
  const mixture = spec.layers.some(({ experts }) => experts !== undefined)
  const modules = new Map<string, AdaptedModule>()
  for (const source of spec.weights) {
    const found = ADAPTED_ROLE.exec(source.role)
    if (found === null || (mixture && MLP.includes(found[2]!))) continue
    const name = nameOf(source).replace(/\.weight$/, '')
    const module = modules.get(name) ?? { name, parts: [] }
    module.parts.push(partOf(source))
    modules.set(name, module)
  }
  return [...modules.values()]
}

function partOf({ role, shape, rows }: WeightSource): AdaptedPart {
  const [height, inputs] = shape as [number, number]
  if (rows === undefined) return { role, outputs: height, inputs }
  return { role, outputs: Math.ceil((height - rows.start) / rows.stride) * rows.block, inputs, rows }
}

export type LoraSettings = Required<Pick<TrainSettings, 'loraRank' | 'loraAlpha' | 'loraTargets' | 'rslora'>>

/** What the engine is told of the adapter. */
export function adapterSpecs(
  modules: readonly AdaptedModule[],
  { loraRank: rank, loraAlpha: alpha, rslora }: LoraSettings,
): AdapterSpec[] {
  const scale = alpha / (rslora ? Math.sqrt(rank) : rank)
  return modules.flatMap(({ parts }) => parts.map(({ role }) => ({ role, rank, scale })))
}

/** How many numbers the adapter has. */
export function parameterCount(modules: readonly AdaptedModule[], rank: number): number {
  return modules.flatMap(({ parts }) => parts).reduce((sum, { outputs, inputs }) => sum + rank * (outputs + inputs), 0)
}
