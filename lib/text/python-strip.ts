/**
 * Python's str.strip family inside templates. The Jinja library strips JavaScript's white space, which is another set than Python's (a byte
 * order mark is not space in Python), and ignores the argument of `strip('\n')`, which Qwen3's template uses. Both would change tokens in
 * silence, so calls of these methods and the filter `trim` are redirected, in the parsed template, to the functions given here.
 */

/** What Python's str.isspace() accepts. */
const SPACE = '\t\n\v\f\r\x1c-\x1f \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000'
const LEADING = new RegExp(`^[${SPACE}]+`)
const IS_SPACE = new RegExp(`[${SPACE}]`)

/** The functions that redirected calls name, to be set in the template's environment. */
export const stripFunctions = {
  __strip: (text: unknown, characters?: unknown) => stripEnd(stripStart(asText(text), characters), characters),
  __lstrip: (text: unknown, characters?: unknown) => stripStart(asText(text), characters),
  // A filter renders what is undefined as nothing; a method of what is undefined is an error.
  __trim: (text: unknown, characters?: unknown) => stripFunctions.__strip(text ?? '', characters),
  __rstrip: (text: unknown, characters?: unknown) => stripEnd(asText(text), characters),
}

interface Node {
  type?: string
  [field: string]: unknown
}

/** Rewrites the parsed template in place. */
export function redirectStrips(node: unknown): void {
  if (typeof node !== 'object' || node === null) return
  if (node instanceof Map) {
    redirectStrips([...node])
    return
  }
  redirect(node as Node)
  for (const child of Object.values(node)) redirectStrips(child)
}

function redirect(node: Node): void {
  const name = stripName(node)
  if (name === undefined) return
  const callee = { type: 'Identifier', value: `__${name}` }
  if (node.type === 'CallExpression') {
    const member = node['callee'] as Node
    Object.assign(node, { callee, args: [member['object'], ...(node['args'] as unknown[])] })
  } else {
    const filter = node['filter'] as Node
    const args = filter.type === 'CallExpression' ? (filter['args'] as unknown[]) : []
    Object.assign(node, { type: 'CallExpression', callee, args: [node['operand'], ...args] })
  }
}

/** Which of the functions above a node stands for, without its underscores. */
function stripName(node: Node): string | undefined {
  if (node.type === 'CallExpression') {
    const member = node['callee'] as Node
    const property = member['property'] as Node | undefined
    if (member.type !== 'MemberExpression' || member['computed'] === true) return undefined
    return ['strip', 'lstrip', 'rstrip'].find((method) => method === property?.['value'])
  }
  if (node.type !== 'FilterExpression') return undefined
  const filter = node['filter'] as Node
  const identifier = filter.type === 'CallExpression' ? (filter['callee'] as Node) : filter
  return identifier['value'] === 'trim' ? 'trim' : undefined
}

function stripStart(text: string, characters: unknown): string {
  if (characters === undefined || characters === null) return text.replace(LEADING, '')
  const set = new Set(asText(characters))
  const all = [...text]
  const start = all.findIndex((character) => !set.has(character))
  return start < 0 ? '' : all.slice(start).join('')
}

function stripEnd(text: string, characters: unknown): string {
  if (characters === undefined || characters === null) {
    // Not a pattern anchored at the end: its time is quadratic in a long run of spaces inside the text.
    let end = text.length
    while (end > 0 && IS_SPACE.test(text.charAt(end - 1))) end--
    return text.slice(0, end)
  }
  const set = new Set(asText(characters))
  const all = [...text]
  return all.slice(0, all.findLastIndex((character) => !set.has(character)) + 1).join('')
}

function asText(value: unknown): string {
  if (typeof value !== 'string') throw new TypeError('only text can be stripped')
  return value
}
