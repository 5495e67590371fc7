/**
 * The digits of a number in a text of JSON, where a JavaScript number would be written with others: 9007199254740993, 1.0, 1e3.
 */

/** A string, a mark, or anything else up to the next mark: enough to find one's way through JSON that is known to be valid. */
const TOKEN = /"[^"\\]*(?:\\.[^"\\]*)*"|[{}[\]:,]|[^\s"{}[\]:,]+/g

/** How the value of `key` is written in the outermost object; of several, the one that JSON.parse takes. */
export function numberText(json: string, key: string): string | undefined {
  let depth = 0
  let found: string | undefined
  let previous = ''
  let name = ''
  for (const [token] of json.matchAll(TOKEN)) {
    if (token === '{' || token === '[') depth++
    else if (token === '}' || token === ']') depth--
    else if (depth === 1 && token === ':') name = JSON.parse(previous) as string
    else if (depth === 1 && previous === ':' && name === key) found = token
    previous = token
  }
  return found
}

/** Whether `json` plainly has the value as JavaScript writes it: one such key, or the first of all, and these digits. */
export function isPlainly(json: string, key: string, value: number): boolean {
  const at = json.indexOf(`"${key}"`)
  if (at < 0 || (at !== 1 && at !== json.lastIndexOf(`"${key}"`))) return false
  let start = at + key.length + 2
  if (json[start] === ':') start++
  if (json[start] === ' ') start++
  const digits = String(value)
  const after = json[start + digits.length]
  return json.startsWith(digits, start) && (after === ',' || after === '}' || after === ' ')
}
