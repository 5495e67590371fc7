/**
 * A run's folder:
 *
 *   config.json     the options as resolved, and under "run" what decides the result: fingerprints of model, data and text
 *   metrics.jsonl   a line per step and per evaluation
 *   checkpoints/    see checkpoints.ts
 *   model/          the trained model in Hugging Face form, at the end; or, with loraRank,
 *   adapter/        the trained adapter in peft's form
 *   summary.json    last of all: with it the run is complete
 *   .lock           while a process is at work, see lock.ts
 *
 * Killed at any moment, the folder can be read, and the run can go on.
 */
import { mkdir, readdir, rm, rmdir } from 'node:fs/promises'
import { dirname, join, resolve } from 'node:path'
import { fileError, readJsonFile, readJsonIfPresent } from '../../core/files.js'
import { ImplexError } from '../../core/errors.js'
import { isPlainObject } from '../../core/arguments.js'
import { isTemporary, writeFileAtomic } from '../../core/atomic.js'
import { Checkpoints } from './checkpoints.js'
import { checkSameRun, differences, type Facts } from '../../core/same-run.js'
import { Lock } from '../../native/lock.js'

/** What config.json holds under "run". */
export interface RunFacts {
  /** Where these differ, a resumed run would be another run. */
  decisive: Facts
  /** Where these differ, results may differ in their last bits. */
  environment: Facts
  /** The time told to templates, ISO 8601. */
  now: string
}

export interface RunConfig {
  options: Facts
  run: RunFacts
}

const LOCK = '.lock'

export class RunFolder implements AsyncDisposable {
  readonly path: string
  readonly checkpoints: Checkpoints
  /** Of an earlier process; undefined for a new run. */
  readonly config: RunConfig | undefined
  readonly #lock: Lock
  readonly #made: string | undefined

  /**
   * Makes the folder, or looks into the one that is there, and keeps other writers out of it until it is disposed of.
   * @throws ImplexError ERR_IO, ERR_DISK_FULL when it cannot be made or written; ERR_IN_USE; ERR_RESUME_MISMATCH when it is used and `resume`
   *   is not set, or holds something else than a run
   */
  static async open(path: string, resume: boolean, warn: (message: string) => void): Promise<RunFolder> {
    let made: string | undefined
    try {
      made = await mkdir(path, { recursive: true })
    } catch (error) {
      throw fileError(path, 'write', error)
    }
    const lock = await Lock.take(join(path, LOCK), path, warn)
    try {
      return new RunFolder(path, await usableConfig(path, resume), lock, made)
    } catch (error) {
      await lock[Symbol.asyncDispose]()
      throw error
    }
  }

  private constructor(path: string, config: RunConfig | undefined, lock: Lock, made: string | undefined) {
    this.path = path
    this.config = config
    this.checkpoints = new Checkpoints(join(path, 'checkpoints'))
    this.#lock = lock
    this.#made = made
  }

  /** Lets others in. A folder that was made here goes away again when nothing was written into it. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#lock[Symbol.asyncDispose]()
    if (this.#made === undefined) return
    const top = resolve(this.#made)
    for (let folder = resolve(this.path); folder.length >= top.length; folder = dirname(folder)) {
      const gone = await rmdir(folder).then(
        () => true,
        () => false, // it is not empty
      )
      if (!gone) return
    }
  }

  get metricsPath(): string {
    return join(this.path, 'metrics.jsonl')
  }

  get modelPath(): string {
    return join(this.path, 'model')
  }

  get adapterPath(): string {
    return join(this.path, 'adapter')
  }

  get summaryPath(): string {
    return join(this.path, 'summary.json')
  }

  async writeConfig({ options, run }: RunConfig): Promise<void> {
    await writeFileAtomic(join(this.path, 'config.json'), `${JSON.stringify({ ...options, run }, null, 2)}\n`)
  }

  /** Removes what a killed process left half written, in the folders inside too. */
  clean(): Promise<void> {
    return removeTemporary(this.path)
  }

  /** The summary of a complete run. */
  readSummary(): Promise<Record<string, unknown> | undefined> {
    return readJsonIfPresent(this.summaryPath, 'ERR_IO')
  }
}

async function removeTemporary(folder: string): Promise<void> {
  const entries = await readdir(folder, { withFileTypes: true }).catch(() => [])
  for (const entry of entries) {
    const path = join(folder, entry.name)
    if (isTemporary(entry.name)) await rm(path, { recursive: true, force: true }).catch(() => {})
    else if (entry.isDirectory()) await removeTemporary(path)
  }
}

/** @returns undefined for a new run @throws ImplexError as RunFolder.open() does */
async function usableConfig(path: string, resume: boolean): Promise<RunConfig | undefined> {
  let names: string[]
  try {
    names = await readdir(path)
  } catch (error) {
    throw fileError(path, 'read', error)
  }
  const config = names.includes('config.json') ? await readConfig(join(path, 'config.json')) : undefined
  const others = names.filter((name) => name !== LOCK && !isTemporary(name))
  if (config === undefined && others.length > 0) {
    const message = `${path} is not empty and contains no run (there is no config.json); choose another folder`
    throw new ImplexError('ERR_RESUME_MISMATCH', message, { path })
  }
  if (config !== undefined && !resume) {
    const message = `${path} already contains a run: continue it with --resume (option resume), or choose another folder`
    throw new ImplexError('ERR_RESUME_MISMATCH', message, { path })
  }
  return config
}

/** A run's config.json. @throws ImplexError ERR_RESUME_MISMATCH, ERR_IO */
async function readConfig(path: string): Promise<RunConfig> {
  const { run, ...options } = await readJsonFile(path, 'ERR_RESUME_MISMATCH', { advice: 'choose another folder' })
  const whole =
    isPlainObject(run) && isPlainObject(run.decisive) && isPlainObject(run.environment) && typeof run.now === 'string'
  if (whole) return { options: options as RunConfig['options'], run: run as unknown as RunFacts }
  const message = `${path} is damaged, or is not the config.json of a run of implex train; choose another folder`
  throw new ImplexError('ERR_RESUME_MISMATCH', message, { path })
}

/** @throws ImplexError ERR_RESUME_MISMATCH naming every difference */
export function checkRun(path: string, before: RunFacts, now: RunFacts, warn: (message: string) => void): void {
  checkSameRun(path, before.decisive, now.decisive, 'train into another folder')
  const environment = differences(before.environment, now.environment)
  if (environment.length > 0)
    warn(
      `${path} was started in another environment (${environment.join('; ')}); results may differ in their last digits from those of an uninterrupted run`,
    )
}
