/**
 * What of rows is given to nothing: keys that no shape reads, and fields of messages where only their text is shown. Counted over a run
 * and told once, so that nothing is left out in silence.
 */
import { contentText, isBlank, type Message, otherKeys } from '../text/messages.js'
import { type RowGroup, rowError, type Text } from './rows.js'

/** Who shows whole messages: a chat template does; the default one, none at all, and a verification prompt show texts. */
export interface Reader {
  templateSource: 'checkpoint' | 'default' | 'none' | 'file'
  kind: 'explicit' | 'implicit' | 'generative'
}

/**
 * A group as its reader shows it, with the names in `unread` of all that it leaves out.
 * @throws ImplexError when a response says nothing but what is left out
 */
export function shown(group: RowGroup, { templateSource, kind }: Reader): RowGroup {
  const whole = kind !== 'generative' && (templateSource === 'checkpoint' || templateSource === 'file')
  const { inputs, unread, ...rest } = group
  if (whole || (inputs === undefined && !hasMessages(group))) return group
  const names = new Set(unread)
  for (const name of ['tools', 'documents', 'variables'] as const) {
    if (inputs?.[name] !== undefined) names.add(name === 'variables' ? 'chat_template_kwargs' : name)
  }
  const textsOnly = (text: Text): Text => {
    if (typeof text === 'string') return text
    for (const message of text) for (const key of otherKeys(message)) names.add(`${key} (of messages)`)
    return text.map((message) => ({ role: message.role, content: contentText(message) }))
  }
  const prompt = textsOnly(group.prompt)
  const responses = group.responses.map((response) => {
    const texts = textsOnly(response)
    if (!isBlank(texts) || isBlank(response)) return texts
    const keys = (response as Message[]).flatMap(otherKeys)
    const where = kind === 'generative' ? 'a verification prompt' : `the template "${templateSource}"`
    const what = `a response has no text, only ${keys.join(', ')}, which ${where} does not show; give a chat template that does`
    throw rowError('ERR_RESPONSE_EMPTY', what, group)
  })
  return { ...rest, prompt, responses, ...(names.size === 0 ? {} : { unread: [...names] }) }
}

function hasMessages({ prompt, responses }: RowGroup): boolean {
  return typeof prompt !== 'string' || responses.some((response) => typeof response !== 'string')
}

/** Counts of rows by name, over a run. */
export class UnreadCounts {
  readonly #rows = new Map<string, number>()

  add(name: string, rows = 1): void {
    this.#rows.set(name, (this.#rows.get(name) ?? 0) + rows)
  }

  get entries(): [name: string, rows: number][] {
    return [...this.#rows]
  }

  /** The warning about those that `told` does not have yet, which are added to it; undefined when there is nothing to say. */
  message(source: string, told = new Set<string>()): string | undefined {
    const news = this.entries.filter(([name]) => !told.has(name))
    if (news.length === 0) return undefined
    for (const [name] of news) told.add(name)
    const shown = news.map(([name, rows]) => `${name} (${rows} ${rows === 1 ? 'row' : 'rows'})`)
    return `${source}: nothing reads these keys: ${shown.join(', ')}; docs/formats.md says what becomes of each key`
  }
}
