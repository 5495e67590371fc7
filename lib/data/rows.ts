/**
 * Rows: what a user's own row may look like, the one form (`RowGroup`) that everything after this file works with, and where rows come
 * from. parse-row.ts brings the one into the other; shapes/ has the forms in which preference data is published.
 */
import { ImplexError } from '../core/errors.js'
import type { Message, TemplateInputs } from '../text/messages.js'
import type { RowShapeName } from './shapes/names.js'

export type Text = string | Message[]

/** What every row may have beside prompt and responses. In every place null stands for absent. */
export interface RowExtras {
  id?: string | number | bigint | null
  /** A system message before the prompt. */
  system?: string | null
  /** JSON schemas of functions, as a list or as its JSON text: the template's `tools`. */
  tools?: unknown[] | string | null
  /** The template's `documents`. */
  documents?: unknown[] | null
  /** Further variables of the template. */
  chat_template_kwargs?: Record<string, unknown> | null
}

export interface PairRow extends RowExtras {
  prompt?: Text | null
  chosen: Text
  rejected: Text
  margin?: number | null
}

export interface GroupRow extends RowExtras {
  prompt: Text
  responses: Text[]
}

/** The forms that a program would write. Published data has more: see RowShapeName. */
export type Row = PairRow | GroupRow

/** One prompt and its responses. */
export interface RowGroup {
  /** 0-based row number; blank lines are not counted. */
  index: number
  /** 1-based line in the file. */
  line?: number
  id?: string | number | bigint
  /** The digits of a number, where `id` would be written otherwise: 1.0. */
  idText?: string
  shape: 'pair' | 'group'
  prompt: Text
  /** For a pair: [chosen, rejected]. A group of chosen and rejected ones has the chosen ones first. */
  responses: Text[]
  /** The steps that the one response is made of, where the row lists them. */
  steps?: string[]
  /** What the template is given besides messages; absent where the row has nothing of the kind. */
  inputs?: TemplateInputs
  margin?: number
  /** Keys of the row that nothing reads, those left out that are known to be about the row only. */
  unread?: readonly string[]
}

/** What is to be continued, with what the template is given besides messages. */
export type Prompt = Pick<RowGroup, 'prompt' | 'inputs'>

/** A row as it comes from a source, before it is understood: text (a line of JSON), or a value, or an error of the source itself. */
export interface SourceRow {
  index: number
  line?: number
  text?: string
  value?: unknown
  /** The row's shape. Absent: its keys tell. */
  shape?: RowShapeName
  error?: ImplexError
}

/**
 * Where rows come from. `chunks` hands over what arrived together, so that a slow source never holds back rows it has already
 * delivered; iterating gives the same rows one at a time. JSONL implements this; any other format can.
 */
export interface RowSource extends AsyncIterable<SourceRow> {
  /** For messages: the file's path. */
  readonly name: string
  chunks(): AsyncIterable<SourceRow[]>
  /** Identifies the content of a source that can be read again; undefined for one that cannot (a pipe). */
  fingerprint?(): Promise<string | undefined>
}

/** Where a row is. */
export interface RowPlace {
  index: number
  line?: number
}

/** An error about one row: the message says where the row is, the error carries the line. */
export function rowError(
  code: 'ERR_ROW_INVALID' | 'ERR_ROW_TOO_LONG' | 'ERR_RESPONSE_EMPTY' | 'ERR_TOKEN_RANGE' | 'ERR_INTERNAL',
  message: string,
  row: RowPlace,
  cause?: unknown,
): ImplexError {
  const place = row.line === undefined ? `row ${row.index}` : `line ${row.line}`
  return new ImplexError(code, `${place}: ${message}`, {
    ...(row.line === undefined ? {} : { line: row.line }),
    ...(cause === undefined ? {} : { cause }),
  })
}

/** A row's id as it is handed on. */
export function idOf({ id, idText }: Pick<RowGroup, 'id' | 'idText'>): Pick<RowGroup, 'id' | 'idText'> {
  return { ...(id === undefined ? {} : { id }), ...(idText === undefined ? {} : { idText }) }
}
