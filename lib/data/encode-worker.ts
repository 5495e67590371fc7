/**
 * The worker thread that parses, renders and tokenizes, so that neither the caller's event loop nor the engine waits for it.
 * It holds the checkpoint's RowEncoder; requests are answered in order.
 */
import { parentPort, workerData } from 'node:worker_threads'
import { ImplexError } from '../core/errors.js'
import { RowEncoder, type TextEncoderOptions } from '../text/text-encoder.js'
import { type EncodeSettings, encodeRow } from './encode.js'
import type { Prompt } from './rows.js'
import { compareTokenizers } from './tokenizer-match.js'
import {
  packError,
  packRows,
  unpackExact,
  unpackPrepared,
  type WireChunk,
  type WireError,
  type WirePrepared,
} from './wire.js'

/** What the main thread needs to know about the encoder. */
export interface EncoderDescription {
  templateSource: RowEncoder['templateSource']
  /** The Jinja text of the template; undefined for `none`. */
  templateText?: string
  /** Tokens that the template added; their ids are the last ones below `vocabularySize`. */
  addedTokens: readonly string[]
  /** Tokens of the tokenizer, the template's additions included. */
  vocabularySize: number
  fingerprint: string
  bosTokenId?: number
  eosTokenId?: number
  padTokenId?: number
  clsTokenId?: number
  /** The id that ends a response under the template. */
  terminator?: number
  /** Generative kind only. */
  yesTokenId?: number
  noTokenId?: number
}

export interface EncodeWorkerData {
  options: TextEncoderOptions
  /** int32[3]: signs of life, id of the request under way, its row. Shared with the main thread. */
  progress: Int32Array
}

export type EncodeRequest =
  | { id: number; rows: WirePrepared[]; settings: EncodeSettings }
  /** Packed by packExact. `first`: the number of the first one, for messages. */
  | { id: number; prompts: Prompt[]; first: number }
  | { id: number; compareWith: string }
  | { id: number; tokens: string[]; alone?: boolean }
  | { id: number; sequences: Int32Array[] }

export type EncodeReply =
  | { ready: EncoderDescription }
  | { failed: WireError }
  | { id: number; chunk: WireChunk }
  | { id: number; encoded: Int32Array[] }
  | { id: number; difference: string | undefined }
  /** The id of each token; undefined for one that the vocabulary lacks. */
  | { id: number; ids: (number | undefined)[] }
  /** Of each token of each sequence. */
  | { id: number; texts: string[][] }
  | { id: number; failed: WireError }

const port = parentPort!
const { options, progress } = workerData as EncodeWorkerData

try {
  const encoder = await RowEncoder.load(options)
  encoder.beforeText = signOfLife
  let last = Promise.resolve()
  port.on('message', (request: EncodeRequest) => {
    last = last.then(() => answer(encoder, request))
  })
  send({ ready: describe(encoder) })
} catch (error) {
  send({ failed: packError(error) })
}

function describe(encoder: RowEncoder): EncoderDescription {
  const generative = options.kind === 'generative'
  return {
    templateSource: encoder.templateSource,
    templateText: encoder.templateText,
    addedTokens: encoder.addedTokens,
    vocabularySize: encoder.vocabularySize,
    fingerprint: encoder.fingerprint,
    bosTokenId: encoder.bosTokenId,
    eosTokenId: encoder.eosTokenId,
    padTokenId: encoder.padTokenId,
    clsTokenId: encoder.clsTokenId,
    terminator: encoder.terminator,
    yesTokenId: generative ? encoder.yesTokenId : undefined,
    noTokenId: generative ? encoder.noTokenId : undefined,
  }
}

async function answer(encoder: RowEncoder, request: EncodeRequest): Promise<void> {
  const { id } = request
  const at = (row: number) => {
    Atomics.store(progress, 1, id)
    Atomics.store(progress, 2, row)
    signOfLife()
  }
  at(0)
  try {
    if ('compareWith' in request) {
      const { path, adapter } = options
      const { difference, check } = await compareTokenizers(path, request.compareWith, encoder.markers, adapter)
      if (check !== undefined) encoder.watch(check)
      send({ id, difference })
    } else if ('tokens' in request) {
      const idOf = (token: string) => (request.alone ? encoder.singleTokenId(token) : encoder.tokenId(token))
      send({ id, ids: request.tokens.map(idOf) })
    } else if ('sequences' in request) {
      send({ id, texts: request.sequences.map((ids) => encoder.tokenTexts(ids)) })
    } else if ('prompts' in request) {
      const encoded = request.prompts.map((given, i) => {
        at(i)
        return encodePrompt(encoder, given, request.first + i)
      })
      send({ id, encoded })
    } else {
      const encoded = request.rows.map((row, i) => {
        at(i)
        return encodeRow(encoder, unpackPrepared(row), request.settings)
      })
      const chunk = packRows(encoded)
      port.postMessage({ id, chunk } satisfies EncodeReply, [chunk.tokens.buffer])
    }
  } catch (error) {
    send({ id, failed: packError(error) })
  }
  signOfLife()
}

function encodePrompt(encoder: RowEncoder, given: Prompt, number: number): Int32Array {
  const { prompt, inputs } = unpackExact(given) as Prompt
  try {
    return encoder.encodePrompt(prompt, inputs)
  } catch (error) {
    if (!(error instanceof ImplexError)) throw error
    throw new ImplexError(error.code, `prompt ${number}: ${error.message}`, { cause: error, path: error.path })
  }
}

function signOfLife(): void {
  Atomics.add(progress, 0, 1)
}

function send(reply: EncodeReply): void {
  port.postMessage(reply)
}
