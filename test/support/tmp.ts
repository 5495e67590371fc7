/** Temporary folders that go away with the test's process. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const folders: string[] = []

/** Makes an empty folder; it is removed, with what it holds, when this process exits. */
export function temporaryFolder(): string {
  // One listener for all: Node takes more than ten for a leak.
  if (folders.length === 0) {
    process.once('exit', () => {
      for (const path of folders) rmSync(path, { recursive: true, force: true })
    })
  }
  const path = mkdtempSync(join(tmpdir(), 'implex-test-'))
  folders.push(path)
  return path
}
