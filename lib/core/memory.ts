/**
 * Free memory, as this process may use it.
 */
import { freemem } from 'node:os'

/** What the machine, or the container that this process is in, can still give. */
export function availableMemory(): number {
  // Without a limit some systems report 0, others a number beyond any memory.
  const limit = process.constrainedMemory()
  const rest = limit > 0 ? limit - process.memoryUsage.rss() : Number.POSITIVE_INFINITY
  return Math.max(0, Math.min(freemem(), rest))
}
