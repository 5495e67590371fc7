/** The folder of reference checkpoints and data beside the repository. It may be absent: tests that need it then skip. */
import { existsSync } from 'node:fs'
import { join, resolve } from 'node:path'

/** The repository's root, seen from dist/test/support. */
export const repositoryRoot = resolve(import.meta.dirname, '..', '..', '..')

/**
 * @param relative path inside the folder, such as `golden/llama`
 * @returns its absolute path, or undefined where it does not exist. IMPLEX_SHARED names another folder than ../shared.
 */
export function sharedPath(relative = ''): string | undefined {
  const path = join(resolve(repositoryRoot, process.env.IMPLEX_SHARED ?? '../shared'), relative)
  return existsSync(path) ? path : undefined
}
