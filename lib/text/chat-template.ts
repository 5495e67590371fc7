/**
 * A chat template: a Jinja text that renders messages, with what transformers puts into its environment.
 */
import { ImplexError, type ImplexErrorCode } from '../core/errors.js'
import { LimitError, Refusal, RenderFault, SyntaxFault, UnsupportedError } from './jinja/errors.js'
import { str } from './jinja/show.js'
import { JinjaTemplate } from './jinja/template.js'
import type { Value } from './jinja/values.js'
import type { TemplateInputs } from './messages.js'
import { strftime } from './strftime.js'

export interface ChatTemplateOptions {
  /** Origin of the template for messages: a file, or "the default template". */
  origin: string
  /** bos_token, eos_token, …: set as variables. Absent ones stay undefined, which renders as nothing. */
  specialTokens: Readonly<Record<string, string>>
  /** The time that strftime_now uses. It is fixed, so that prompts do not change in a run across midnight. */
  now: Date
  /** Called now and then while a template runs long; what it throws ends the rendering. */
  poll?: () => void
}

const OWN_VARIABLES = ['messages', 'tools', 'documents', 'add_generation_prompt']

export class ChatTemplate {
  private readonly template: JinjaTemplate
  /** What strftime_now has returned so far: part of the rendered text that is in no file. */
  readonly dates = new Set<string>()

  /** Naming the origin: ERR_TEMPLATE_INVALID when `text` is not Jinja, ERR_TEMPLATE_UNSUPPORTED when it needs what only Jinja2 has. */
  constructor(
    readonly text: string,
    private readonly options: ChatTemplateOptions,
  ) {
    const functions = {
      raise_exception: (message?: Value): never => {
        throw new Refusal(given(message))
      },
      strftime_now: (format?: Value): string => {
        const date = strftime(options.now, given(format))
        this.dates.add(date)
        return date
      },
    }
    try {
      this.template = new JinjaTemplate(text, { functions })
    } catch (cause) {
      throw this.error(cause)
    }
  }

  /**
   * Errors: ERR_TEMPLATE_INVALID when the template raises (raise_exception) or fails, ERR_TEMPLATE_LIMIT when it reaches a bound,
   * ERR_TEMPLATE_UNSUPPORTED when it comes to what only Jinja2 has.
   */
  render(messages: readonly object[], addGenerationPrompt: boolean, inputs: TemplateInputs = {}): string {
    const { tools = null, documents = null, variables = {} } = inputs
    try {
      const taken = OWN_VARIABLES.find((name) => Object.hasOwn(variables, name))
      if (taken !== undefined) throw new RenderFault(`the variable ${taken} is given twice`)
      const own = { messages, tools, documents, add_generation_prompt: addGenerationPrompt }
      return this.template.render({ ...this.options.specialTokens, ...variables, ...own }, this.options.poll)
    } catch (cause) {
      throw this.error(cause)
    }
  }

  private error(cause: unknown): Error {
    if (cause instanceof ImplexError) return cause
    const [code, what] = described(cause as Error)
    return new ImplexError(code, `chat template ${this.options.origin} ${what}`, { cause })
  }
}

function described(cause: Error): [ImplexErrorCode, string] {
  const { message } = cause
  if (cause instanceof SyntaxFault) return ['ERR_TEMPLATE_INVALID', `is not a valid Jinja template: ${message}`]
  if (cause instanceof UnsupportedError) return ['ERR_TEMPLATE_UNSUPPORTED', message]
  if (cause instanceof LimitError) return ['ERR_TEMPLATE_LIMIT', `was stopped: ${message}`]
  if (cause instanceof Refusal) return ['ERR_TEMPLATE_INVALID', `refused a conversation: ${message}`]
  return ['ERR_TEMPLATE_INVALID', `failed on a conversation: ${message}`]
}

function given(argument: Value | undefined): string {
  if (argument === undefined) throw new RenderFault('a function misses its argument')
  return str(argument)
}
