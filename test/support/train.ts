/** Small trainings for tests: data that a tiny model can learn, and what two runs that agree bit for bit have in common. */
import { createHash } from 'node:crypto'
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { PairRow } from '../../lib/data/rows.js'
import { seededRandom } from '../fixtures/random.js'

const WORDS = 'the answer is that people would write about water and oil all day Yes No'.split(' ')

/** Pairs whose chosen response begins with another word than the rejected one. */
export function pairs(count: number, seed = 6): (PairRow & { id: number; prompt: string })[] {
  const random = seededRandom(seed)
  const text = (words: number) => Array.from({ length: words }, () => random.pick(WORDS)).join(' ')
  return Array.from({ length: count }, (_, id) => ({
    id,
    prompt: text(1 + random.below(6)),
    chosen: `find ${text(1 + random.below(9))}`,
    rejected: `long ${text(1 + random.below(9))}`,
  }))
}

export function writeRows(file: string, rows: unknown[]): string {
  writeFileSync(file, rows.map((row) => `${JSON.stringify(row)}\n`).join(''))
  return file
}

export interface Line {
  [key: string]: unknown
  step: number
  loss: number
  accuracy: number
  evaluation?: string
}

export function metricsOf(out: string): Line[] {
  return readFileSync(join(out, 'metrics.jsonl'), 'utf8')
    .split('\n')
    .slice(0, -1)
    .map((line) => JSON.parse(line) as Line)
}

/** A run's result: the model's bytes, and its metrics without the times. */
export function resultOf(out: string): { model: Record<string, string>; metrics: string[] } {
  const folder = join(out, 'model')
  const digest = (name: string) =>
    createHash('sha256')
      .update(readFileSync(join(folder, name)))
      .digest('hex')
  return {
    model: Object.fromEntries(
      readdirSync(folder)
        .sort()
        .map((name) => [name, digest(name)]),
    ),
    metrics: metricsOf(out).map(({ seconds: _, ...line }) => JSON.stringify(line)),
  }
}
