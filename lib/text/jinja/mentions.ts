/**
 * Questions about a part of the parsed template.
 */

/** Whether a name is used anywhere in it. */
export function mentions(node: unknown, name: string): boolean {
  if (typeof node !== 'object' || node === null) return false
  if (Array.isArray(node)) return node.some((part) => mentions(part, name))
  const { kind, ...parts } = node as { kind?: string; name?: string }
  if (kind === 'name' && parts.name === name) return true
  return Object.values(parts).some((part) => mentions(part, name))
}

/** How many nodes are evaluated when it runs once, without the blocks inside, which count on their own. */
export function weight(node: unknown): number {
  if (typeof node !== 'object' || node === null) return 0
  let sum = 'kind' in node ? 1 : 0
  for (const [key, part] of Object.entries(node))
    if ((key !== 'body' && key !== 'otherwise') || !Array.isArray(part)) sum += weight(part)
  return sum
}
