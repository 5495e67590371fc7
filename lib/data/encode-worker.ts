/**
 * The worker thread that parses, renders and tokenizes, so that neither the caller's event loop nor the engine waits for it.
 * It holds the checkpoint's RowEncoder; requests are answered in order.
 */
import { parentPort, workerData } from 'node:worker_threads'
import { RowEncoder, type TextEncoderOptions } from '../text/text-encoder.js'
import { type EncodeSettings, encodeRow } from './encode.js'
import { compareTokenizers } from './tokenizer-match.js'
import { packError, packRows, unpackPrepared, type WireChunk, type WireError, type WirePrepared } from './wire.js'

/** What the main thread needs to know about the encoder. */
export interface EncoderDescription {
  templateSource: RowEncoder['templateSource']
  addedTokens: number
  /** Tokens of the tokenizer, the template's additions included. */
  vocabularySize: number
  fingerprint: string
  bosTokenId?: number
  eosTokenId?: number
  padTokenId?: number
  /** The id that ends a response under the template. */
  terminator?: number
  /** Generative kind only. */
  yesTokenId?: number
}

export type EncodeRequest =
  | { id: number; rows: WirePrepared[]; settings: EncodeSettings }
  | { id: number; compareWith: string }

export type EncodeReply =
  | { ready: EncoderDescription }
  | { failed: WireError }
  | { id: number; chunk: WireChunk }
  | { id: number; difference: string | undefined }
  | { id: number; failed: WireError }

const port = parentPort!
const options = workerData as TextEncoderOptions

try {
  const encoder = await RowEncoder.load(options)
  port.on('message', (request: EncodeRequest) => void answer(encoder, request))
  const ready: EncoderDescription = {
    templateSource: encoder.templateSource,
    addedTokens: encoder.addedTokens.length,
    vocabularySize: encoder.vocabularySize,
    fingerprint: encoder.fingerprint,
    bosTokenId: encoder.bosTokenId,
    eosTokenId: encoder.eosTokenId,
    padTokenId: encoder.padTokenId,
    terminator: encoder.terminator,
    yesTokenId: options.kind === 'generative' ? encoder.yesTokenId : undefined,
  }
  send({ ready })
} catch (error) {
  send({ failed: packError(error) })
}

async function answer(encoder: RowEncoder, request: EncodeRequest): Promise<void> {
  const { id } = request
  try {
    if ('compareWith' in request) {
      const { difference, check } = await compareTokenizers(options.path, request.compareWith, encoder.markers)
      if (check !== undefined) encoder.watch(check)
      send({ id, difference })
      return
    }
    const encoded = request.rows.map((row) => encodeRow(encoder, unpackPrepared(row), request.settings))
    const chunk = packRows(encoded)
    port.postMessage({ id, chunk } satisfies EncodeReply, [chunk.tokens.buffer])
  } catch (error) {
    send({ id, failed: packError(error) })
  }
}

function send(reply: EncodeReply): void {
  port.postMessage(reply)
}
