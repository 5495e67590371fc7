/**
 * Everything about one checkpoint's text: messages to text by its chat template, text to ids by its tokenizer. How a row's sequence is made
 * of the texts of its prompt and of the whole conversation is in conversation.ts. No special tokens are added: the template writes them.
 */
import { createHash } from 'node:crypto'
import path from 'node:path'
import { ImplexError } from '../core/errors.js'
import { checkOneOf, checkString, invalidArgument } from '../core/arguments.js'
import { ChatTemplate } from './chat-template.js'
import type { Border } from '../checkpoint/trained-with.js'
import { type Conversation, type EncodedText, encodeConversation, encodeText } from './conversation.js'
import {
  copyJson,
  isBlank,
  type Message,
  plainText,
  promptMessages,
  responseMessages,
  sameInputs,
  sameTurns,
  type TemplateInputs,
  transcript,
} from './messages.js'
import { type ConfigTokens, nextId, specialToken } from './config-tokens.js'
import type { Surroundings } from './post-processor.js'
import { readTemplateFile } from './template-source.js'
import { Tokenizer } from './tokenizer.js'
import { readTokenizer } from './tokenizer-folder.js'
import type { AddedTokenSpec, TokenizerSpec } from './tokenizer-json.js'

/** Plain data: may be posted to a worker. */
export interface TextEncoderOptions {
  /** The checkpoint's folder. */
  path: string
  /** Folder of an adapter of it, whose own tokenizer and template count where it has them. */
  adapter?: string
  /**
   * `auto` (default): the checkpoint's template, else `default`. `default`: `<|user|>text eos<|assistant|>text eos`, with both markers added
   * to the vocabulary. `none`: the raw prompt, and the raw response with eos unless it ends so; around
   * both what the tokenizer's own post-processor adds, never twice. Otherwise the path of a .jinja file.
   */
  template?: string
  /** `generative` makes a vocabulary without "Yes" or "No" an error at once. */
  kind?: 'explicit' | 'implicit' | 'generative'
  /** The time told to templates that ask for it. Default: when the encoder is loaded. */
  now?: Date
}

export type TemplateSource = 'checkpoint' | 'default' | 'none' | 'file'

type Text = string | readonly Message[]

/** Markers that the default template adds to the vocabulary. */
const DEFAULT_MARKERS = ['<|user|>', '<|assistant|>']
const DEFAULT_TEMPLATE =
  "{% for m in messages %}{% if m.role not in ['user', 'assistant'] %}" +
  "{{ raise_exception('it knows the roles user and assistant, not ' + m.role) }}{% endif %}" +
  "{{ '<|' + m.role + '|>' + m.content + eos_token }}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"

/** A turn that no template has a reason to change, to find out what a template writes around it. */
const PROBE = 'implex0probe'

export class RowEncoder {
  /**
   * Errors: ERR_CHECKPOINT_NOT_FOUND, ERR_TOKENIZER_MISSING, ERR_TOKENIZER_INVALID, ERR_TEMPLATE_INVALID, ERR_IO; TypeError and RangeError
   * for the options themselves.
   */
  static async load(options: TextEncoderOptions): Promise<RowEncoder> {
    checkString('path', options.path)
    if (options.adapter !== undefined) checkString('adapter', options.adapter)
    const wanted = options.template ?? 'auto'
    checkString('template', wanted)
    if (wanted === '')
      throw invalidArgument('template', '"auto", "default", "none" or the path of a .jinja file', wanted)
    if (options.kind !== undefined) checkOneOf('kind', options.kind, ['explicit', 'implicit', 'generative'])
    const now = options.now ?? new Date()
    if (!(now instanceof Date) || Number.isNaN(now.getTime())) throw invalidArgument('now', 'a valid Date', options.now)

    const { file, text, spec, config, surroundings } = await readTokenizer(options.path, options.adapter)
    const source = templateSource(wanted, config.template !== undefined)
    const { specialTokens } = config
    const addedTokens = source === 'default' ? addMarkers(spec) : []
    const tokenizer = new Tokenizer(spec, file)

    if (source === 'default' && specialTokens['eos_token'] === undefined) {
      throw new ImplexError(
        'ERR_TEMPLATE_INVALID',
        `${options.path} has no chat template, and the default one needs an eos_token, which tokenizer_config.json does not name; ` +
          'set it there, or give a template',
        { path: options.path },
      )
    }
    const templateText =
      source === 'file'
        ? await readTemplateFile(wanted)
        : source === 'default'
          ? { text: DEFAULT_TEMPLATE, origin: '"default"' }
          : config.template
    const template =
      source === 'none' || templateText === undefined
        ? undefined
        : new ChatTemplate(templateText.text, { origin: templateText.origin, specialTokens, now })
    const encoder = new RowEncoder(tokenizer, template, {
      source,
      addedTokens,
      specialTokens,
      // A chat template writes all special tokens itself.
      surroundings: source === 'none' ? surroundings() : { before: [], after: [] },
      decides: [text, config.tokens],
      folder: options.path,
    })
    if (options.kind === 'generative') void [encoder.yesTokenId, encoder.noTokenId]
    return encoder
  }

  readonly templateSource: TemplateSource
  /** Tokens that the vocabulary did not have; their ids are the last ones below `vocabularySize`. */
  readonly addedTokens: readonly string[]
  /** Ids lie in [0, vocabularySize), added tokens included. A model's embedding may have more rows. */
  readonly vocabularySize: number
  readonly bosTokenId?: number
  readonly eosTokenId?: number
  readonly padTokenId?: number
  readonly clsTokenId?: number
  /** What the template writes after a response; '' where that cannot be told. */
  tail = ''
  /** The id that ends a response under the template; undefined when the template ends a response in no token of its own. */
  readonly terminator?: number
  /** sha256 (hex) of all that decides ids: tokenizer.json, template, special and added tokens, and the date if the template tells it. */
  readonly fingerprint: string

  /** Called before each text of a row is made: a sign that the encoder gets on. */
  beforeText: (() => void) | undefined

  private readonly specialTokens: Readonly<Record<string, string>>
  /** Ids that the tokenizer itself puts around a plain text; none with a template. */
  private readonly surroundings: Surroundings
  private readonly folder: string
  private encodedPrompt: EncodedText | undefined
  /** The prompt rendered last: a row's responses follow one another. */
  private last: { messages: readonly Message[]; inputs: TemplateInputs | undefined; text: string } | undefined

  private constructor(
    private readonly tokenizer: Tokenizer,
    private readonly template: ChatTemplate | undefined,
    parts: {
      source: TemplateSource
      addedTokens: string[]
      specialTokens: Readonly<Record<string, string>>
      surroundings: Surroundings
      /** What decides ids: the content of tokenizer.json, and what tokenizer_config.json adds to it. */
      decides: [string, ConfigTokens]
      folder: string
    },
  ) {
    this.templateSource = parts.source
    this.addedTokens = parts.addedTokens
    this.specialTokens = parts.specialTokens
    this.surroundings = parts.surroundings
    this.folder = parts.folder
    this.vocabularySize = tokenizer.size
    const bos = this.specialId('bos_token')
    const eos = this.specialId('eos_token')
    if (bos !== undefined) this.bosTokenId = bos
    if (eos !== undefined) this.eosTokenId = eos
    const pad = this.specialId('pad_token')
    if (pad !== undefined) this.padTokenId = pad
    const cls = this.specialId('cls_token')
    if (cls !== undefined) this.clsTokenId = cls
    const terminator = this.probe()
    if (terminator !== undefined) this.terminator = terminator
    this.fingerprint = createHash('sha256')
      .update(parts.decides[0])
      .update(
        JSON.stringify([
          parts.source,
          template?.text ?? '',
          parts.specialTokens,
          parts.addedTokens,
          [...(template?.dates ?? [])],
          parts.decides[1],
        ]),
      )
      .digest('hex')
  }

  /** The Jinja text of the template; undefined for `none`. */
  get templateText(): string | undefined {
    return this.template?.text
  }

  /** The prompt's text, with what opens the assistant's turn. ERR_TEMPLATE_INVALID when the template refuses it. */
  renderPrompt(prompt: Text, inputs?: TemplateInputs): string {
    if (this.template === undefined) return plainText(prompt)
    const messages = promptMessages(prompt)
    if (this.last !== undefined && sameTurns(this.last.messages, messages) && sameInputs(this.last.inputs, inputs)) {
      return this.last.text
    }
    const text = this.template.render(messages, true, inputs)
    this.last = { messages: copyJson(messages), inputs: copyJson(inputs), text }
    return text
  }

  /** The text of the whole conversation. Errors: ERR_RESPONSE_EMPTY (nothing but white space), ERR_TEMPLATE_INVALID (refused). */
  renderConversation(prompt: Text, response: Text, inputs?: TemplateInputs): string {
    this.beforeText?.()
    if (isBlank(response))
      throw new ImplexError('ERR_RESPONSE_EMPTY', 'the response is empty: there is nothing to score')
    if (this.template === undefined) {
      const text = this.renderPrompt(prompt) + plainText(response)
      const end = this.specialTokens['eos_token'] ?? ''
      return text.endsWith(end) ? text : text + end
    }
    return this.template.render([...promptMessages(prompt), ...responseMessages(response)], false, inputs)
  }

  /** int32[tokens] of renderPrompt; not to be changed. */
  encodePrompt(prompt: Text, inputs?: TemplateInputs): Int32Array {
    return this.begun(this.promptText(prompt, inputs).ids)
  }

  /** The ids of renderConversation under a rule for the border, and where the prompt ends in them. */
  encodeConversation(prompt: Text, response: Text, border: Border, inputs?: TemplateInputs): Conversation {
    const text = this.renderConversation(prompt, response, inputs)
    const conversation = encodeConversation(this.tokenizer, this.promptText(prompt, inputs), text, border)
    const begun = this.begun(conversation.ids)
    const added = begun.length - conversation.ids.length
    return { ...conversation, ids: this.ended(begun), border: conversation.border + added }
  }

  private promptText(prompt: Text, inputs?: TemplateInputs): EncodedText {
    const text = this.renderPrompt(prompt, inputs)
    if (this.encodedPrompt?.text !== text) this.encodedPrompt = encodeText(this.tokenizer, text)
    return this.encodedPrompt
  }

  /** int32[tokens] of the user turn that asks whether `response` is a correct answer to `prompt`, up to where "Yes" or "No" follows. */
  encodeVerification(prompt: Text, response: Text): Int32Array {
    this.beforeText?.()
    const question = `Question: ${transcript(prompt)}\nAnswer: ${transcript(response)}\nVerification: Is the answer correct (Yes/No)?`
    const text =
      this.template === undefined
        ? this.renderPrompt(question)
        : this.template.render([{ role: 'user', content: question }], true)
    return this.begun(Int32Array.from(this.tokenizer.encode(text)))
  }

  /** With what the tokenizer puts before a plain text, unless the text begins with it. */
  private begun(ids: Int32Array): Int32Array {
    const { before } = this.surroundings
    return before.every((id, i) => id === ids[i]) ? ids : Int32Array.of(...before, ...ids)
  }

  /** With what the tokenizer puts after a plain text, unless the text ends with it. */
  private ended(ids: Int32Array): Int32Array {
    const { after } = this.surroundings
    return after.every((id, i) => id === ids[ids.length - after.length + i]) ? ids : Int32Array.of(...ids, ...after)
  }

  /** Has `check` told of every text that is encoded from now on; what it throws is the row's error. */
  watch(check: (text: string, ids: ArrayLike<number>) => void): void {
    const { before, after } = this.surroundings
    for (const id of [...before, ...after]) check(this.tokenizer.texts([id]).join(''), [id])
    this.tokenizer.watch = check
  }

  /** The tokens that the template added. */
  get markers(): AddedTokenSpec[] {
    return this.addedTokens.map((marker) => ({ ...specialToken(marker), id: this.tokenizer.tokenId(marker) as number }))
  }

  /** The id of exactly this token; undefined when the vocabulary lacks it. */
  tokenId(token: string): number | undefined {
    return this.tokenizer.tokenId(token)
  }

  /** The id of the token that the tokenizer makes of this text alone, or of exactly this token; undefined where it is neither. */
  singleTokenId(text: string): number | undefined {
    const ids = text === '' ? [] : this.tokenizer.encode(text)
    return ids.length === 1 ? ids[0] : this.tokenizer.tokenId(text)
  }

  /**
   * The prompt's last tokens, from the one that ends its last turn to what opens the answer: the first is the last added token before the
   * template opens the answer. Undefined where the template writes none there.
   */
  opening(prompt: Text, inputs?: TemplateInputs): Int32Array | undefined {
    if (this.template === undefined) return undefined
    const closed = this.template.render(promptMessages(prompt), false, inputs)
    if (!this.renderPrompt(prompt, inputs).startsWith(closed)) return undefined
    const ids = this.tokenizer.encode(closed)
    const last = ids.findLastIndex((id) => this.tokenizer.isAdded(id))
    return last < 0 ? undefined : this.encodePrompt(prompt, inputs).subarray(last)
  }

  /** The text of each token: see Tokenizer.texts. */
  tokenTexts(ids: Iterable<number>): string[] {
    return this.tokenizer.texts(ids)
  }

  /** The id of exactly "Yes". ERR_TOKENIZER_INVALID when the vocabulary has no such token. */
  get yesTokenId(): number {
    return this.answerId('Yes')
  }

  /** The id of exactly "No". ERR_TOKENIZER_INVALID when the vocabulary has no such token. */
  get noTokenId(): number {
    return this.answerId('No')
  }

  private answerId(token: string): number {
    const id = this.tokenizer.tokenId(token)
    if (id !== undefined && id !== this.specialId('unk_token')) return id
    throw new ImplexError(
      'ERR_TOKENIZER_INVALID',
      `the vocabulary of ${path.join(this.folder, 'tokenizer.json')} has no token "${token}", which a generative reward reads; ` +
        'use another kind of reward or another model',
      { path: this.folder },
    )
  }

  private specialId(name: string): number | undefined {
    const token = this.specialTokens[name]
    return token === undefined ? undefined : this.tokenizer.tokenId(token)
  }

  /** Renders a made-up row: checks that the special tokens written are tokens, returns the one that ends a response. */
  private probe(): number | undefined {
    const prompt: Message[] = [{ role: 'user', content: PROBE }]
    let whole: string
    try {
      whole = this.renderConversation(prompt, PROBE)
    } catch (error) {
      // A template may want other roles than these two; rows tell.
      if (error instanceof ImplexError && error.code === 'ERR_TEMPLATE_INVALID') return undefined
      throw error
    }
    if (whole.split(PROBE).length < 3) {
      throw new ImplexError(
        'ERR_TEMPLATE_INVALID',
        `the chat template of ${this.folder} leaves out what user or assistant say, so it cannot serve for scoring`,
      )
    }
    for (const [name, token] of Object.entries(this.specialTokens)) {
      if (token !== '' && whole.includes(token) && this.tokenizer.tokenId(token) === undefined) {
        throw new ImplexError(
          'ERR_TOKENIZER_INVALID',
          `${name} ${JSON.stringify(token)} of ${this.folder} is not in the vocabulary of its tokenizer.json`,
          { path: this.folder },
        )
      }
    }
    this.tail = whole.slice(whole.lastIndexOf(PROBE) + PROBE.length)
    const ids = this.ended(Int32Array.from(this.tokenizer.encode(this.tail)))
    // A tail of ordinary text would be tokenized together with the response before it: no fixed last token.
    return ids.some((id) => this.tokenizer.isAdded(id)) ? ids.at(-1) : undefined
  }
}

function templateSource(wanted: string, checkpointHasOne: boolean): TemplateSource {
  if (wanted === 'auto') return checkpointHasOne ? 'checkpoint' : 'default'
  return wanted === 'default' || wanted === 'none' ? wanted : 'file'
}

/** Adds the default template's markers after the last id; returns those that were not there. */
function addMarkers(spec: TokenizerSpec): string[] {
  let next = nextId(spec)
  const missing = DEFAULT_MARKERS.filter((marker) => !spec.addedTokens.some((token) => token.content === marker))
  for (const marker of missing) spec.addedTokens.push({ ...specialToken(marker), id: next++ })
  return missing
}
