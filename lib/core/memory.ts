/**
 * How much free memory this process may use.
 */
import { freemem } from 'node:os'

/** Free memory of the machine, or of the container of this process, in bytes. */
export function availableMemory(): number {
  // Without a limit some systems report 0, others a number beyond any memory.
  const limit = process.constrainedMemory()
  const rest = limit > 0 ? limit - process.memoryUsage.rss() : Number.POSITIVE_INFINITY
  return Math.max(0, Math.min(freemem(), rest))
}
