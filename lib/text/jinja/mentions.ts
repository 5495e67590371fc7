/**
 * Whether a name is used anywhere in a part of a template.
 */

/** Walks any part of the parsed template. */
export function mentions(node: unknown, name: string): boolean {
  if (typeof node !== 'object' || node === null) return false
  if (Array.isArray(node)) return node.some((part) => mentions(part, name))
  const { kind, ...parts } = node as { kind?: string; name?: string }
  if (kind === 'name' && parts.name === name) return true
  return Object.values(parts).some((part) => mentions(part, name))
}
