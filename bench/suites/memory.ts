/** Memory of this process. Where the system does not tell its peak for a stretch of time, the peak is that of the process's life. */
import { readFileSync, writeFileSync } from 'node:fs'

/** Resident memory now, in bytes. */
export const residentBytes = (): number => process.memoryUsage.rss()

/** Resets the peak that peakBytes() returns (Linux). */
export function resetPeak(): void {
  try {
    writeFileSync('/proc/self/clear_refs', '5')
  } catch {
    // not Linux, or not allowed
  }
}

export function peakBytes(): number {
  try {
    const [, kibibytes] = /VmHWM:\s+(\d+) kB/.exec(readFileSync('/proc/self/status', 'utf8'))!
    return Number(kibibytes) * 1024
  } catch {
    return process.resourceUsage().maxRSS * 1024
  }
}
