/**
 * Finds the commit of the code: from git, or from commit.json in a packed folder.
 */
import { execFile } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'

export interface Commit {
  commit: string | null
  /** Whether the working tree had changes, apart from results of benchmarks. */
  dirty: boolean | null
}

export async function commitOf(root: string): Promise<Commit> {
  const git = async (...args: string[]) =>
    promisify(execFile)('git', ['-C', root, ...args]).then(
      ({ stdout }) => stdout.trim(),
      () => null,
    )
  const packed = await readFile(join(root, 'commit.json'), 'utf8').catch(() => undefined)
  if (packed !== undefined) return JSON.parse(packed) as Commit
  const commit = await git('rev-parse', 'HEAD')
  const changes = await git('status', '--porcelain', '--', '.', ':!bench/results')
  return { commit, dirty: changes === null ? null : changes !== '' }
}
