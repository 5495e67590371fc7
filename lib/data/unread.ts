/**
 * What of rows is given to nothing: keys that no shape reads, and fields of messages where only their text is shown. Counted over a run
 * and told once, so that nothing is left out in silence.
 */
import { contentText, otherKeys } from '../text/messages.js'
import { type RowGroup, rowError } from './rows.js'

/** Who shows whole messages: a chat template does; the default one, none at all, and a verification prompt show texts. */
export interface Reader {
  templateSource: 'checkpoint' | 'default' | 'none' | 'file'
  kind: 'explicit' | 'implicit' | 'generative'
}

/**
 * Names of what nobody reads of a row; undefined for nothing.
 * @throws ImplexError when a response says nothing but what is not shown
 */
export function unreadOf(group: RowGroup, { templateSource, kind }: Reader): readonly string[] | undefined {
  const whole = kind !== 'generative' && (templateSource === 'checkpoint' || templateSource === 'file')
  if (whole || (group.inputs === undefined && !hasMessages(group))) return group.unread
  const names = new Set(group.unread)
  for (const name of ['tools', 'documents', 'chatTemplateKwargs'] as const) {
    if (group.inputs?.[name] !== undefined) names.add(name === 'chatTemplateKwargs' ? 'chat_template_kwargs' : name)
  }
  for (const text of [group.prompt, ...group.responses]) {
    if (typeof text === 'string') continue
    for (const message of text) for (const key of otherKeys(message)) names.add(`${key} (of messages)`)
  }
  for (const response of group.responses) {
    if (typeof response === 'string' || response.some((message) => contentText(message).trim() !== '')) continue
    const where = kind === 'generative' ? 'a verification prompt' : `template "${templateSource}"`
    const keys = response.flatMap(otherKeys)
    const what = `a response has no text, only ${keys.join(', ')}, which ${where} does not show; give a chat template that does`
    throw rowError('ERR_RESPONSE_EMPTY', what, group)
  }
  return names.size === 0 ? undefined : [...names]
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
