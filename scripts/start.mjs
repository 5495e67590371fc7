// `npm start`: builds what is not built, then runs the main job, examples/start.ts. Compiler output shows only when a build fails.
import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { join } from 'node:path'

const root = join(import.meta.dirname, '..')

function run(script, ...args) {
  const { status, signal } = spawnSync(process.execPath, [join(root, script), ...args], { cwd: root, stdio: 'inherit' })
  if (status !== 0) process.exit(signal === null ? (status ?? 1) : 1)
}

function step(name, ...command) {
  const start = performance.now()
  process.stdout.write(`${name} ... `)
  run(...command)
  process.stdout.write(`${((performance.now() - start) / 1000).toFixed(1)} s\n`)
}

const built = ['build', 'build-cmake'].some((folder) => existsSync(join(root, folder, 'Release', 'implex.node')))
const note = built ? '' : ', the first time a minute or two'
step(`Building the engine (C++${note})`, 'scripts/build-native.mjs', 'default')
step('Building the TypeScript', 'node_modules/typescript/bin/tsc', '-p', 'tsconfig.json')
run('dist/examples/main.js')
