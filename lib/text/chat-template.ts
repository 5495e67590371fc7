/**
 * A chat template: a Jinja text that renders messages, with what transformers puts into its environment.
 */
import { Environment, Interpreter, Template } from '@huggingface/jinja'
import { ImplexError } from '../core/errors.js'
import { Float } from '../core/parse-json.js'
import type { Message, TemplateInputs } from './messages.js'
import { redirectStrips, stripFunctions } from './python-strip.js'
import { strftime } from './strftime.js'

export interface ChatTemplateOptions {
  /** Where the template is from, for messages: a file, or "the default template". */
  origin: string
  /** bos_token, eos_token, …: set as variables. Absent ones stay undefined, which renders as nothing. */
  specialTokens: Readonly<Record<string, string>>
  /** The time that strftime_now tells. Fixed, so that a run across midnight keeps its prompts. */
  now: Date
}

export class ChatTemplate {
  private readonly template: { parsed: unknown }
  private readonly globals: Environment
  /** What strftime_now has returned so far: part of the rendered text that is in no file. */
  readonly dates = new Set<string>()

  /** ERR_TEMPLATE_INVALID, naming the origin, when `text` is not Jinja. */
  constructor(
    readonly text: string,
    private readonly options: ChatTemplateOptions,
  ) {
    this.globals = this.makeGlobals()
    try {
      this.template = new Template(text)
      redirectStrips(this.template.parsed)
    } catch (cause) {
      // The library's parser runs off the end of an unclosed block with a TypeError of its own.
      const reason = cause instanceof SyntaxError ? cause.message : 'unexpected end; is a block not closed?'
      throw this.error(`is not a valid Jinja template: ${reason}`, cause)
    }
  }

  /** ERR_TEMPLATE_INVALID when the template raises (raise_exception) or fails. */
  render(messages: readonly Message[], addGenerationPrompt: boolean, inputs: TemplateInputs = {}): string {
    try {
      const result: { value: string } = new Interpreter(this.environment(messages, addGenerationPrompt, inputs)).run(
        this.template.parsed,
      )
      return result.value
    } catch (cause) {
      if (cause instanceof Refusal) throw this.error(`refused a conversation: ${cause.message}`, cause)
      throw this.error(`failed on a conversation: ${cause instanceof Error ? cause.message : String(cause)}`, cause)
    }
  }

  private environment(
    messages: readonly Message[],
    addGenerationPrompt: boolean,
    { tools, documents, variables }: TemplateInputs,
  ): Environment {
    const environment = new Environment(this.globals)
    if (tools !== undefined) environment.set('tools', plain(tools))
    if (documents !== undefined) environment.set('documents', plain(documents))
    for (const [name, value] of Object.entries(variables ?? {})) environment.set(name, plain(value))
    environment.set('messages', plain(messages))
    environment.set('add_generation_prompt', addGenerationPrompt)
    return environment
  }

  /** What every rendering shares; templates cannot assign to a parent environment. */
  private makeGlobals(): Environment {
    const globals = new Environment()
    const variables: Record<string, unknown> = {
      true: true,
      false: false,
      none: null,
      True: true,
      False: false,
      None: null,
      range,
      raise_exception: (message: unknown) => {
        throw new Refusal(String(message))
      },
      strftime_now: (format: unknown) => {
        const date = strftime(this.options.now, String(format))
        this.dates.add(date)
        return date
      },
      ...stripFunctions,
      ...this.options.specialTokens,
      // transformers passes these as None; templates test for it.
      tools: null,
      documents: null,
    }
    for (const [name, value] of Object.entries(variables)) globals.set(name, value)
    return globals
  }

  private error(what: string, cause: unknown): ImplexError {
    return new ImplexError('ERR_TEMPLATE_INVALID', `chat template ${this.options.origin} ${what}`, { cause })
  }
}

/** The library knows neither a float with an integral value nor an integer beyond 2^53 nor a Map. */
function plain(value: unknown): unknown {
  if (typeof value === 'bigint') return Number(value)
  if (typeof value !== 'object' || value === null) return value
  if (value instanceof Float) return value.value
  if (Array.isArray(value)) return value.map(plain)
  const entries = value instanceof Map ? [...value] : Object.entries(value)
  return Object.fromEntries(entries.map(([key, one]) => [String(key), plain(one)]))
}

/** What raise_exception throws: the template's own verdict on a conversation. */
class Refusal extends Error {}

function range(start: number, stop?: number, step = 1): number[] {
  const [from, to] = stop === undefined ? [0, start] : [start, stop]
  if (step === 0) throw new RangeError('range() step must not be zero')
  const values: number[] = []
  for (let i = from; step > 0 ? i < to : i > to; i += step) values.push(i)
  return values
}
