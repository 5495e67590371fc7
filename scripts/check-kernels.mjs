// Checks that no kernel object holds a symbol that the linker may share between objects (weak or unique: inline functions and templates of
// headers). One copy would serve the whole program, and it could be the copy compiled with instructions that the processor lacks.
//   node scripts/check-kernels.mjs FOLDER     the folder of a CMake build
import { spawnSync } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { join } from 'node:path'

const folder = process.argv[2]
const libraries = readdirSync(folder).filter((name) => /^libimplex_kernels_.*\.a$/.test(name))
let failed = libraries.length === 0
if (failed) console.error(`no kernel libraries in ${folder}`)
for (const library of libraries) {
  const { stdout, status } = spawnSync('nm', ['-C', '--defined-only', join(folder, library)], { encoding: 'utf8' })
  const shared = stdout.split('\n').filter((line) => / [WVwvu] /.test(line))
  if (status !== 0 || shared.length > 0) failed = true
  for (const line of shared) console.error(`${library}: ${line.replace(/^\w+ /, '')}`)
}
process.exitCode = failed ? 1 : 0
