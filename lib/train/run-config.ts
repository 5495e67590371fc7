/**
 * What a training writes down of itself in config.json: its options, and what a run that goes on with it must have in common with it.
 */
import { createHash } from 'node:crypto'
import { resolve } from 'node:path'
import type { Checkpoint } from '../checkpoint/checkpoint.js'
import { modelFingerprint } from '../checkpoint/fingerprint.js'
import { checkSameRun, type Facts, type Json } from '../core/same-run.js'
import { NUMERICS_VERSION } from '../data/reference-cache.js'
import type { OnDevice } from '../native/device.js'
import { nativeInfo, type Trainer } from '../native/handles.js'
import type { InitialHead } from './head.js'
import type { TrainConduct, TrainSettings } from './options.js'
import type { PairSet } from './pairs.js'
import { applicableSettings, type ResolvedOptions } from './resolve-options.js'
import type { RunConfig, RunFacts } from './runs/run-folder.js'

export interface RunParts {
  checkpoint: Checkpoint
  reference?: Checkpoint
  /** Fingerprint of what turns text into ids. */
  text: string
  data: PairSet
  evaluation: ReadonlyMap<string, PairSet>
  head?: InitialHead
  opened: OnDevice<Trainer>
  now: Date
}

/** @param paths of model and data, as config.json holds them */
export async function describeRun(
  paths: Record<string, Json>,
  settings: TrainSettings,
  conduct: TrainConduct,
  { checkpoint, reference, text, data, evaluation, head, opened, now }: RunParts,
): Promise<RunConfig> {
  const { template } = settings
  const fingerprint = (one: Checkpoint) =>
    modelFingerprint(one, conduct.cache ? conduct.cacheDir : undefined, conduct.signal)
  const { device, model } = opened
  return {
    options: {
      ...paths,
      ...(applicableSettings(settings) as Record<string, Json>),
      ...(reference && { reference: reference.path }),
      template: ['auto', 'default', 'none'].includes(template) ? template : resolve(template),
      head: typeof conduct.head === 'string' ? resolve(conduct.head) : undefined,
      device: conduct.device,
      rows: conduct.rows,
      onError: conduct.onError,
      recompute: conduct.recompute,
      checkpointSteps: conduct.checkpointSteps,
    },
    run: {
      decisive: {
        ...decisiveSettings(settings),
        ...(reference && { reference: await fingerprint(reference) }),
        model: await fingerprint(checkpoint),
        text,
        data: data.fingerprint,
        evaluation: Object.fromEntries([...evaluation].map(([name, set]) => [name, set.fingerprint])),
        head: head && (head.weight === undefined ? 'of the checkpoint' : digest(head.weight)),
      },
      environment: { version: nativeInfo().version, numerics: NUMERICS_VERSION, device, kernels: model.kernels },
      now: now.toISOString(),
    },
  }
}

/** Whether a run had these settings; what they lead to, such as the content of files, is not looked at. */
export function checkSettings(path: string, { decisive }: RunFacts, settings: ResolvedOptions['settings']): void {
  const asked = decisiveSettings(settings)
  const before = Object.fromEntries(Object.keys(asked).map((name) => [name, decisive[name]]))
  checkSameRun(path, before, asked, 'train into another folder')
}

/** Without those that are paths: fingerprints of what these lead to stand for them. */
function decisiveSettings(settings: ResolvedOptions['settings']): Facts {
  const { template: _, reference, ...rest } = applicableSettings(settings)
  const named = reference === 'initial' || reference === 'none' ? { reference } : {}
  return { ...rest, ...named } as Facts
}

function digest(values: Float32Array): string {
  return createHash('sha256').update(values).digest('hex')
}
