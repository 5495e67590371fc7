/**
 * What is asked of a build: to encode the rows of a file for one kind of reward, and to say how long that took or what the ids are.
 */
import type { Border } from '../../lib/checkpoint/trained-with.js'

/**
 * Where the time begins. `groups`: prompt and responses are at hand, the encoder is new. `lines`: the same from lines of JSON. `warm`:
 * lines, by an encoder that has seen the rows before. `pool`: from the file through an encoding thread that is new, as scoring does it.
 */
export const STAGES = ['groups', 'lines', 'warm', 'pool'] as const
export type Stage = (typeof STAGES)[number]

export interface Question {
  stage: Stage
  kind: 'explicit' | 'implicit' | 'generative'
  border: Border
  /** Folder of a checkpoint. */
  model: string
  /** `auto`, `default`, `none` or a file. */
  template: string
  /** A file of JSON Lines. */
  data: string
  /** Also a digest of the ids of every row. */
  each?: boolean
}

/** What tells apart the ids of two rows: all ids, and where responses begin in them. An error's code in the place of both. */
export interface RowDigest {
  ids: string
  borders: string
  error?: string
}

export interface Times {
  /** On the wall. */
  seconds: number
  /** Processor time, all threads together. */
  cpuSeconds: number
}

export interface Encoded extends Times {
  rows: number
  tokens: number
  errors: number
  /** Over all rows. */
  digest: string
  each?: RowDigest[]
}
