/**
 * Dialogues written as one text, with marks between the turns.
 */
import type { Message } from '../../text/messages.js'
import type { RowFields } from '../row-fields.js'
import { assistant, user } from './shape.js'

const TURN = /(?:^|\n\n)(Human|Assistant):/g

/**
 * The turns of a text such as "\n\nHuman: …\n\nAssistant: …", without the white space around them. Undefined when it does not begin with
 * one. A last turn with nothing in it is left out with `open`: it is where the answer goes.
 */
export function humanAssistantTurns(text: string, open: boolean): Message[] | undefined {
  const marks = [...text.matchAll(TURN)]
  if (marks.length === 0 || text.slice(0, marks[0]!.index).trim() !== '') return undefined
  const turns = marks.map((mark, i): Message => {
    const content = text.slice(mark.index + mark[0].length, marks[i + 1]?.index).trim()
    return mark[1] === 'Human' ? user(content) : assistant(content)
  })
  if (open && turns.at(-1)!.role === 'assistant' && turns.at(-1)!.content === '') turns.pop()
  return turns
}

/** A whole dialogue that ends with an answer. */
export function dialogue(key: string, fields: RowFields): Message[] {
  const turns = humanAssistantTurns(fields.string(key), false)
  if (turns === undefined) {
    throw fields.fail(
      `"prompt" is missing, and "${key}" is no dialogue that begins with "\\n\\nHuman:" and has its turns marked "\\n\\nAssistant:"`,
    )
  }
  if (turns.length < 2 || turns.at(-1)!.role !== 'assistant') {
    throw fields.fail(`"${key}" must end with a turn "\\n\\nAssistant: …", which is the response`)
  }
  return turns
}

const EXTRA_ID = /\n?<extra_id_1>(User|Assistant)\n/

/** A prompt whose later turns are marked "<extra_id_1>Assistant" and "<extra_id_1>User"; the first is the user's. */
export function extraIdTurns(text: string): string | Message[] {
  const [first = '', ...rest] = text.split(EXTRA_ID)
  if (rest.length === 0) return text
  const turns = [user(first)]
  for (let i = 0; i < rest.length; i += 2) turns.push((rest[i] === 'User' ? user : assistant)(rest[i + 1]!))
  return turns
}
