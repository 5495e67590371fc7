/**
 * LanguageModel: a checkpoint opened to generate text. The engine decodes many sequences together and keeps their keys and values; what a
 * sequence gets depends on the seed, its prompt and the options alone, never on the sequences beside it.
 */
import { join } from 'node:path'
import type { Checkpoint } from '../checkpoint/checkpoint.js'
import { textValues } from '../checkpoint/wrapper.js'
import { readJsonIfPresent } from '../core/files.js'
import type { EncodePool } from '../data/encode-pool.js'
import type { EncoderDescription } from '../data/encode-worker.js'
import { hashTokens } from '../data/reference-cache.js'
import type { Prompt, Text } from '../data/rows.js'
import { shown } from '../data/unread.js'
import { DEVICES, type DeviceName, DTYPES, type DType } from '../native/device.js'
import type { Model } from '../native/handles.js'
import { throwIfAborted, untilAborted } from '../core/abort.js'
import { ImplexError } from '../core/errors.js'
import {
  checkInteger,
  checkNumber,
  checkObject,
  checkOneOf,
  checkString,
  invalidArgument,
  outOfRange,
} from '../core/arguments.js'
import { openText, openToScore } from './open.js'
import { givenPrompt, promptError } from './given-prompt.js'
import type { TemplateSource } from '../text/text-encoder.js'
import { availableMemory } from '../core/memory.js'

export interface LanguageModelOptions {
  /** As for RewardModel. Defaults to 'auto'. */
  device?: 'auto' | DeviceName
  /** Defaults to 'f32'. */
  dtype?: DType
  /** How prompts are rendered: 'auto', 'default', 'none' (the raw prompt) or the path of a Jinja file. Defaults to 'auto'. */
  template?: string
  /** The time told to templates that ask for it. Defaults to now. */
  now?: Date
  /** Aborts the opening (ERR_ABORTED). */
  signal?: AbortSignal
}

export interface GenerateOptions {
  /** Most tokens that a prompt gets; fewer where the model's context ends. Defaults to 256. */
  maxNewTokens?: number
  /** Divides the logits; 0 takes the most probable token each time. Defaults to 1. */
  temperature?: number
  /** Draws from the fewest most probable tokens that reach this probability together; 1: from all. Defaults to 1. */
  topP?: number
  /** Draws from so many most probable tokens, before `topP`; 0: from all. Defaults to 0. */
  topK?: number
  /** Defaults to 0. */
  seed?: number
  /** Sequences for each prompt. Defaults to 1. */
  samples?: number
  /**
   * Tokens that end a sequence, by id or as the vocabulary spells them. Defaults to those of the checkpoint (eos_token_id of config.json and
   * generation_config.json) and the one that ends a turn in its template.
   */
  stop?: readonly (string | number)[]
  /** Sequences that are decoded together; changes speed and memory only. Defaults to 64. */
  batchSize?: number
  /** Aborts with ERR_ABORTED within a step. */
  signal?: AbortSignal
}

export interface Generation {
  /** Without the stop token. */
  text: string
  /** The new tokens, a stop token at the end included. */
  ids: Int32Array
  /** ln p of each by the model itself, whatever the temperature: the bits that scoring this continuation gives. */
  logprobs: Float32Array
  /** Whether a stop token ended it, or the number of tokens. */
  finish: 'stop' | 'length'
}

interface Sequence {
  prompt: Int32Array
  /** Index of the prompt. */
  at: number
  seed: { low: number; high: number }
}

type Resolved = ReturnType<typeof resolveOptions>

export class LanguageModel implements Disposable {
  /** Absolute path of the checkpoint. */
  readonly path: string
  readonly device: DeviceName
  /** Why `device: 'auto'` is not the GPU. */
  readonly fallbackReason?: string
  readonly dtype: DType
  /** Kernel set of the engine: results are bit-identical under one of these. */
  readonly kernels: string
  readonly templateSource: TemplateSource
  /** Most tokens of prompt and continuation together. */
  readonly contextLength: number
  readonly #checkpoint: Checkpoint
  /** Templates and tokenizer: in a thread, so that no text holds up the event loop. */
  readonly #pool: EncodePool
  readonly #model: Model
  readonly #stop: readonly number[]

  /**
   * Opens a checkpoint folder in Hugging Face form.
   * @throws TypeError, RangeError for wrong arguments
   * @throws ImplexError when checkpoint, tokenizer, template or device cannot be used
   */
  static async open(path: string, options: LanguageModelOptions = {}): Promise<LanguageModel> {
    checkString('path', path)
    checkObject('options', options)
    const { device = 'auto', dtype = 'f32', template = 'auto', now, signal } = options
    checkOneOf('device', device, DEVICES)
    checkOneOf('dtype', dtype, DTYPES)
    checkString('template', template)
    checkSignal(signal)
    if (now !== undefined && !(now instanceof Date && !Number.isNaN(now.getTime())))
      throw invalidArgument('now', 'a valid Date', now)
    const { checkpoint, pool } = await openText({ path, template, now }, 1, { signal })
    try {
      const stop = await defaultStop(checkpoint, pool.description)
      const opened = await openToScore(checkpoint, { use: 'sft', who: 'generation' }, { device, dtype }, signal)
      return new LanguageModel(checkpoint, pool, stop, dtype, opened)
    } catch (error) {
      pool.close()
      throw error
    }
  }

  private constructor(
    checkpoint: Checkpoint,
    pool: EncodePool,
    stop: readonly number[],
    dtype: DType,
    { model, device, fallbackReason }: { model: Model; device: DeviceName; fallbackReason?: string },
  ) {
    this.path = checkpoint.path
    this.device = device
    this.fallbackReason = fallbackReason
    this.dtype = dtype
    this.kernels = model.kernels
    this.templateSource = pool.description.templateSource
    this.contextLength = checkpoint.contextLength
    this.#checkpoint = checkpoint
    this.#pool = pool
    this.#model = model
    this.#stop = stop
  }

  get disposed(): boolean {
    return this.#model.disposed
  }

  /**
   * Continues prompts: `samples` generations for each, in the order of the prompts. The same prompt given twice gets different ones.
   * @throws TypeError, RangeError for wrong arguments
   * @throws ImplexError ERR_ROW_INVALID, ERR_ROW_TOO_LONG naming the prompt; ERR_OUT_OF_MEMORY; ERR_ABORTED; ERR_DISPOSED
   */
  async generate(prompts: readonly (Text | Prompt)[], options: GenerateOptions = {}): Promise<Generation[][]> {
    const all: Generation[][] = []
    for await (const generations of this.stream(prompts, options)) all.push(generations)
    return all
  }

  /** The same, prompt by prompt as their batches end. */
  async *stream(prompts: readonly (Text | Prompt)[], options: GenerateOptions = {}): AsyncGenerator<Generation[]> {
    checkObject('options', options)
    const resolved = resolveOptions(options, await this.#stopIds(options))
    const { samples, batchSize, signal } = resolved
    throwIfAborted(signal, 'the generation')
    const sequences = await this.#sequences(prompts, resolved)
    let finished: Generation[] = []
    for (let first = 0; first < sequences.length; first += batchSize) {
      throwIfAborted(signal, 'the generation')
      finished.push(...(await this.#batch(sequences.slice(first, first + batchSize), resolved)))
      while (finished.length >= samples) {
        yield finished.slice(0, samples)
        finished = finished.slice(samples)
      }
    }
  }

  /** Frees the weights. What is under way is rejected. Idempotent. */
  dispose(): void {
    this.#pool.close()
    this.#model.dispose()
  }

  [Symbol.dispose](): void {
    this.dispose()
  }

  async #stopIds({ stop = this.#stop }: GenerateOptions): Promise<Int32Array> {
    if (!Array.isArray(stop)) throw invalidArgument('stop', 'a list of tokens', stop)
    const tokens = (stop as readonly unknown[]).filter((token) => typeof token === 'string')
    const found = tokens.length === 0 ? [] : await this.#pool.tokenIds(tokens)
    let next = 0
    return Int32Array.from(stop as readonly unknown[], (token, i) => {
      const name = `stop[${i}]`
      if (typeof token !== 'string') {
        checkInteger(name, token, 0, 2 ** 31 - 1)
        return token as number
      }
      const id = found[next++]
      if (id === undefined) throw outOfRange(name, 'a token of the vocabulary', token)
      return id
    })
  }

  async #sequences(prompts: readonly (Text | Prompt)[], { seed, samples, signal }: Resolved): Promise<Sequence[]> {
    if (!Array.isArray(prompts)) throw invalidArgument('prompts', 'a list of prompts', prompts)
    const asked = Array.from(prompts as readonly unknown[], (given, at) => this.#asked(given, at))
    const encoded = await untilAborted(this.#pool.encodePrompts(asked), signal, 'the generation')
    const seen = new Map<string, number>()
    return encoded.flatMap((prompt, at) => {
      this.#check(prompt, at)
      const key = Buffer.from(prompt.buffer, prompt.byteOffset, prompt.byteLength).toString('latin1')
      const before = seen.get(key) ?? 0
      seen.set(key, before + samples)
      return Array.from({ length: samples }, (_, j) => {
        const stream = Int32Array.of(seed % 2 ** 32, Math.floor(seed / 2 ** 32), before + j)
        return { prompt, at, seed: hashTokens(prompt, hashTokens(stream)) }
      })
    })
  }

  /** A prompt as its template shows it. */
  #asked(given: unknown, at: number): Prompt {
    const whole = givenPrompt(given, at)
    const reader = { templateSource: this.templateSource, kind: 'implicit' } as const
    const asked = shown({ index: at, shape: 'group', responses: [], ...whole }, reader)
    if (asked.unread !== undefined) {
      const what = `the template "${this.templateSource}" does not show ${asked.unread.join(', ')}; give a chat template that does`
      throw promptError('ERR_TEMPLATE_INVALID', at, what)
    }
    return { prompt: asked.prompt, ...(asked.inputs === undefined ? {} : { inputs: asked.inputs }) }
  }

  #check(prompt: Int32Array, at: number): void {
    if (prompt.length === 0) {
      throw promptError('ERR_ROW_INVALID', at, 'it is empty, so nothing predicts the first token')
    }
    if (prompt.length >= this.contextLength) {
      const context = `the model's context has ${this.contextLength}, so there is no room for another token`
      throw promptError('ERR_ROW_TOO_LONG', at, `it has ${prompt.length} tokens, and ${context}`)
    }
    const rows = this.#checkpoint.spec.vocabSize + this.#checkpoint.spec.addedTokens
    const bad = prompt.find((id) => id >= rows)
    if (bad === undefined) return
    throw promptError(
      'ERR_TOKEN_RANGE',
      at,
      `token id ${bad} is outside the model's vocabulary of ${rows}; tokenizer.json and the weights do not belong together`,
    )
  }

  async #batch(batch: readonly Sequence[], options: Resolved): Promise<Generation[]> {
    const prompts: Int32Array[] = []
    const places: number[] = []
    let last = -1
    for (const { prompt, at } of batch) {
      if (at !== last) prompts.push(prompt)
      last = at
      places.push(prompts.length - 1)
    }
    this.#checkMemory(prompts, batch.length, options)
    const { maxNewTokens, temperature, topP, topK, stop, signal } = options
    const result = await this.#model.generate(
      {
        tokens: Int32Array.from(prompts.flatMap((ids) => [...ids])),
        lengths: Int32Array.from(prompts, (ids) => ids.length),
        sequences: Int32Array.from(places),
        seeds: Int32Array.from(batch.flatMap(({ seed }) => [seed.high, seed.low])),
        maxNewTokens,
        temperature,
        topP,
        topK,
        stop,
      },
      signal,
    )
    let end = 0
    const found = Array.from(result.lengths, (length) => {
      end += length
      const ids = result.tokens.slice(end - length, end)
      const finish: Generation['finish'] = stop.includes(ids.at(-1)!) ? 'stop' : 'length'
      return { ids, logprobs: result.logprobs.slice(end - length, end), finish }
    })
    const said = found.map(({ ids, finish }) => (finish === 'stop' ? ids.slice(0, -1) : ids))
    const texts = await untilAborted(this.#pool.tokenTexts(said), signal, 'the generation')
    return found.map((one, i) => ({ text: texts[i]!.join(''), ...one }))
  }

  /** The system may promise memory that it does not have, and end a process that takes the promise at its word. */
  #checkMemory(prompts: readonly Int32Array[], sequences: number, { maxNewTokens }: Resolved): void {
    if (this.device !== 'cpu') return
    const { layers, kvHeads, headDim } = this.#checkpoint.spec
    const lengths = prompts.map((ids) => ids.length)
    const room = Math.min(maxNewTokens, this.contextLength - Math.min(...lengths))
    const tokens = lengths.reduce((sum, length) => sum + length, 0) + sequences * room
    const bytes = 2 * layers.length * kvHeads * headDim * tokens * (this.dtype === 'f32' ? 4 : 2)
    const available = availableMemory()
    if (bytes <= available) return
    const mib = (value: number) => `${Math.ceil(value / 2 ** 20)} MiB`
    throw new ImplexError(
      'ERR_OUT_OF_MEMORY',
      `the keys and values of ${sequences} sequences of up to ${room} new tokens need ${mib(bytes)}, but only ${mib(available)} are free; ` +
        'set a smaller batchSize (--batch-size) or maxNewTokens (--max-new-tokens)',
    )
  }
}

function resolveOptions(options: GenerateOptions, stop: Int32Array) {
  const { maxNewTokens = 256, temperature = 1, topP = 1, topK = 0, seed = 0, samples = 1, batchSize = 64 } = options
  checkInteger('maxNewTokens', maxNewTokens, 1, 2 ** 24)
  checkNumber('temperature', temperature, 0, 1e6)
  checkNumber('topP', topP, Number.MIN_VALUE, 1)
  checkInteger('topK', topK, 0, 2 ** 31 - 1)
  checkInteger('seed', seed, 0)
  checkInteger('samples', samples, 1, 2 ** 20)
  checkInteger('batchSize', batchSize, 1, 2 ** 16)
  checkSignal(options.signal)
  return { maxNewTokens, temperature, topP, topK, seed, samples, batchSize, stop, signal: options.signal }
}

function checkSignal(signal: unknown): asserts signal is AbortSignal | undefined {
  if (signal !== undefined && !(signal instanceof AbortSignal))
    throw invalidArgument('signal', 'an AbortSignal', signal)
}

/** Ids that end what a model says: all that the checkpoint names, and the end of a turn. */
async function defaultStop(checkpoint: Checkpoint, encoder: EncoderDescription): Promise<number[]> {
  const ids = new Set<number>()
  for (const id of [encoder.terminator, encoder.eosTokenId, checkpoint.eosTokenId]) if (id !== undefined) ids.add(id)
  for (const name of ['config.json', 'generation_config.json']) {
    const file = join(checkpoint.path, name)
    const values = (await readJsonIfPresent(file, 'ERR_CONFIG_INVALID')) ?? {}
    const eos = (textValues(values) ?? values)['eos_token_id']
    for (const id of Array.isArray(eos) ? eos : [eos]) if (Number.isSafeInteger(id) && id >= 0) ids.add(id as number)
  }
  return [...ids]
}
