/**
 * Checkpoints of a run: folders step-N of the engine's state and what else the next step depends on. They are filled under a hidden name and
 * renamed, and the last two are kept: whenever the process dies, there is one to go on from.
 */
import { mkdir, readdir, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { fileError, readJsonFile, systemCode } from '../../core/files.js'
import type { Trainer } from '../../native/handles.js'
import { ImplexError } from '../../core/errors.js'
import type { RandomState } from '../../core/random.js'
import { appear, flushFolder, temporaryName, writeFlushed } from '../../core/atomic.js'

const FORMAT = 1
const KEPT = 2
const STATE = 'state.bin'
const POSITION = 'position.json'

/** Where a run stands, between two steps. */
export interface RunPosition {
  /** Optimizer steps taken. */
  step: number
  /** Epochs completed. */
  epoch: number
  /** Pairs of the epoch's order that are done. */
  pair: number
  /** Random numbers as they were before the epoch's order was drawn. */
  random: RandomState
  /** Length of metrics.jsonl. */
  metricsBytes: number
  /** Spent on the steps so far; not part of what is repeatable. */
  seconds: number
  /** Trained on so far. */
  tokens: number
}

export class Checkpoints {
  readonly path: string

  /** @param path folder of the checkpoints; made with the first one */
  constructor(path: string) {
    this.path = path
  }

  /** @throws ImplexError ERR_IO, ERR_DISK_FULL; those before it stay as they were */
  async write(trainer: Pick<Trainer, 'saveState'>, position: RunPosition): Promise<void> {
    const name = `step-${String(position.step).padStart(9, '0')}`
    const target = join(this.path, name)
    const fill = async (temporary: string) => {
      await mkdir(temporary, { recursive: true })
      await trainer.saveState(join(temporary, STATE))
      const text = `${JSON.stringify({ format: FORMAT, ...position }, null, 2)}\n`
      await writeFlushed(join(temporary, POSITION), (file) => file.writeFile(text))
      await flushFolder(temporary)
    }
    await appear(target, fill, async (temporary) => {
      // The same step before and after the evaluation that follows it, or a damaged one.
      if ((await this.#names()).includes(name)) await this.#remove(name)
      await rename(temporary, target)
    })
    for (const old of (await this.#names()).slice(KEPT)) await this.#remove(old)
  }

  /**
   * Loads the newest checkpoint that is whole into the trainer.
   * @returns undefined when there is none
   * @throws ImplexError ERR_RESUME_MISMATCH when there are some, and none of them can be used
   */
  async load(
    trainer: Pick<Trainer, 'loadState' | 'steps'>,
    warn: (message: string) => void,
  ): Promise<RunPosition | undefined> {
    const problems: string[] = []
    for (const name of await this.#names()) {
      try {
        const position = await readPosition(join(this.path, name, POSITION))
        await trainer.loadState(join(this.path, name, STATE))
        if ((await trainer.steps()) !== position.step) throw new Error(`its state is not that of step ${position.step}`)
        for (const problem of problems) warn(`${problem}; continuing from ${name} instead`)
        return position
      } catch (error) {
        problems.push(`${join(this.path, name)} cannot be used: ${(error as Error).message}`)
      }
    }
    if (problems.length === 0) return undefined
    throw new ImplexError('ERR_RESUME_MISMATCH', `${problems.join('\n')}\nTrain into another folder`, {
      path: this.path,
    })
  }

  /** Newest first. */
  async #names(): Promise<string[]> {
    try {
      const names = await readdir(this.path)
      return names.filter((name) => /^step-\d{9,}$/.test(name)).sort((a, b) => Number(b.slice(5)) - Number(a.slice(5)))
    } catch (error) {
      if (systemCode(error) === 'ENOENT') return []
      throw fileError(this.path, 'read', error)
    }
  }

  /** Renamed first, so that a half-removed one is never taken for a checkpoint. A failure costs disk space only. */
  async #remove(name: string): Promise<void> {
    const aside = temporaryName(join(this.path, name))
    await rename(join(this.path, name), aside)
      .then(() => rm(aside, { recursive: true, force: true }))
      .catch(() => {})
  }
}

async function readPosition(path: string): Promise<RunPosition> {
  const value = await readJsonFile(path, 'ERR_RESUME_MISMATCH')
  const numbers = ['step', 'epoch', 'pair', 'metricsBytes', 'seconds', 'tokens']
  if (
    value.format !== FORMAT ||
    !numbers.every((name) => typeof value[name] === 'number' && value[name] >= 0) ||
    !Array.isArray(value.random) ||
    value.random.length !== 4 ||
    !value.random.every((word) => Number.isInteger(word) && word >= 0 && word < 2 ** 32)
  ) {
    throw new Error(`${path} is damaged or from another version of implex`)
  }
  return value as unknown as RunPosition
}
