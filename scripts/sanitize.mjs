// Runs the tests under sanitizers (GCC on Linux):
//   1. the native tests with AddressSanitizer and UndefinedBehaviorSanitizer (build-asan), leaks included
//   2. the native tests with ThreadSanitizer (build-tsan)
//   3. the addon with AddressSanitizer and UndefinedBehaviorSanitizer under the JavaScript tests named as arguments (default: addon)
// Node itself is not instrumented: the sanitizer's library is preloaded, and leaks are not looked for, since Node frees little at exit.
import { execFileSync, spawnSync } from 'node:child_process'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'

const root = join(import.meta.dirname, '..')
const jobs = process.env.JOBS ?? String(availableParallelism())
const names = process.argv.slice(2)

function run(command, args, env = {}) {
  console.log(`> ${command} ${args.join(' ')}`)
  const { status, error } = spawnSync(command, args, { cwd: root, stdio: 'inherit', env: { ...process.env, ...env } })
  if (error) console.error(error.message)
  return status === 0
}

function build(folder, ...options) {
  const configured = run('cmake', [
    '-S',
    '.',
    '-B',
    folder,
    '-DCMAKE_CXX_COMPILER=g++',
    '-DIMPLEX_CUDA=OFF',
    ...options,
  ])
  return configured && run('cmake', ['--build', folder, '--parallel', jobs])
}

const library = (name) => execFileSync('g++', [`-print-file-name=${name}`], { encoding: 'utf8' }).trim()
const ubsan = { UBSAN_OPTIONS: 'print_stacktrace=1:halt_on_error=1' }

const results = {
  'native tests, address and undefined behavior':
    build('build-asan', '-DIMPLEX_SANITIZE=address;undefined', '-DIMPLEX_BUILD_ADDON=ON') &&
    run(join(root, 'build-asan', 'implex_native_tests'), [], ubsan),
  'native tests, threads':
    build('build-tsan', '-DIMPLEX_SANITIZE=thread') &&
    run(join(root, 'build-tsan', 'implex_native_tests'), [], { TSAN_OPTIONS: 'halt_on_error=1' }),
  // libstdc++ is preloaded too: the sanitizer looks up the function that throws exceptions when it starts, before the addon is there.
  'addon, address and undefined behavior': run(
    process.execPath,
    ['dist/test/run.js', ...(names.length > 0 ? names : ['addon'])],
    {
      ...ubsan,
      IMPLEX_NATIVE: join(root, 'build-asan', 'implex.node'),
      LD_PRELOAD: `${library('libasan.so')} ${library('libstdc++.so')}`,
      ASAN_OPTIONS: 'detect_leaks=0',
      IMPLEX_TEST_TIMEOUT: process.env.IMPLEX_TEST_TIMEOUT ?? '1200',
    },
  ),
}

for (const [name, clean] of Object.entries(results)) console.log(`${clean ? 'clean ' : 'FAILED'} ${name}`)
process.exitCode = Object.values(results).every(Boolean) ? 0 : 1
