// Builds native code, doing only what is needed.
//   node scripts/build-native.mjs default     node-gyp, or cmake-js where there is no Python (node-gyp is a Python program)
//   node scripts/build-native.mjs node-gyp    build/Release/implex.node
//   node scripts/build-native.mjs cmake-js    build-cmake/Release/implex.node
//   node scripts/build-native.mjs tests       build-native/implex_native_tests (no Node in it)
// Compiler output is shown when a build fails, or with IMPLEX_VERBOSE=1. JOBS limits the parallel compilations.
import { spawnSync } from 'node:child_process'
import { existsSync, realpathSync, statSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { dirname, join } from 'node:path'

const root = join(import.meta.dirname, '..')
const jobs = process.env.JOBS ?? String(availableParallelism())
const verbose = process.env.IMPLEX_VERBOSE === '1'

/** Runs a command in the repository's root; ends this process when it fails. */
function run(command, ...args) {
  const result = spawnSync(command, args, {
    cwd: root,
    encoding: 'utf8',
    maxBuffer: 1 << 28,
    stdio: verbose ? 'inherit' : ['ignore', 'pipe', 'pipe'],
  })
  if (result.error?.code === 'ENOENT') {
    console.error(
      `${command} was not found. implex needs Node, a C++20 compiler, make and (for native tests) CMake 3.19.`,
    )
    process.exit(1)
  }
  if (result.status !== 0) {
    if (!verbose) process.stderr.write(`${result.stdout ?? ''}${result.stderr ?? ''}`)
    console.error(`\`${command} ${args.join(' ')}\` failed${result.error ? `: ${result.error.message}` : ''}`)
    process.exit(1)
  }
}

/** node-gyp and cmake-js lie in node_modules/.bin in a checkout; npm brings node-gyp along when the installed package is built. */
function tool(name) {
  const local = join(root, 'node_modules', '.bin', name)
  return existsSync(local) ? local : name
}

/** Node's own headers where this Node came with them (most installations do), so that node-gyp need not download any. */
function nodeHeaders() {
  const prefix = dirname(dirname(realpathSync(process.execPath)))
  const found = process.env.npm_config_nodedir === undefined && existsSync(join(prefix, 'include/node/common.gypi'))
  return found ? [`--nodedir=${prefix}`] : []
}

const modified = (file) => (existsSync(join(root, file)) ? statSync(join(root, file)).mtimeMs : 0)

const runs = (command) => spawnSync(command, ['--version']).status === 0

const builds = {
  default() {
    builds[runs('python3') || runs('python') || !runs('cmake') ? 'node-gyp' : 'cmake-js']()
  },
  'node-gyp'() {
    // gyp turns sources.json into make rules at configure time and does not watch it.
    const inputs = ['binding.gyp', 'sources.json', 'package.json', 'scripts/sources.mjs']
    if (inputs.some((file) => modified(file) >= modified('build/Makefile')))
      run(tool('node-gyp'), 'configure', ...nodeHeaders())
    run(tool('node-gyp'), 'build', '--jobs', jobs, ...nodeHeaders())
  },
  'cmake-js'() {
    run(tool('cmake-js'), 'build', '-O', 'build-cmake', '-p', jobs)
  },
  tests() {
    run('cmake', '-S', '.', '-B', 'build-native')
    run('cmake', '--build', 'build-native', '--parallel', jobs, '--target', 'implex_native_tests', 'implex_parity')
  },
}

const build = builds[process.argv[2]]
if (build === undefined) {
  console.error(`usage: build-native.mjs ${Object.keys(builds).join(' | ')}`)
  process.exit(2)
}
build()
