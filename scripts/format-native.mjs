// Formats the C++ and CUDA files with clang-format (style: .clang-format). --check only reports, with exit status 1 where a file differs.
import { spawnSync } from 'node:child_process'
import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'

const root = join(import.meta.dirname, '..')
const mode = process.argv.includes('--check') ? ['--dry-run', '--Werror'] : ['-i']
const files = ['native', 'cuda']
  .filter((folder) => existsSync(join(root, folder)))
  .flatMap((folder) => readdirSync(join(root, folder), { recursive: true }).map((name) => `${folder}/${name}`))
  .filter((name) => /\.(cc|h|cu|cuh)$/.test(name))

if (files.length > 0) {
  const { status, error } = spawnSync('clang-format', [...mode, ...files], { cwd: root, stdio: 'inherit' })
  if (error) console.error(`clang-format could not be run (${error.message}): install it, for example with apt-get`)
  process.exitCode = status ?? 1
}
