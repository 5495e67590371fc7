// Runs the tests under sanitizers (GCC on Linux), in parts that can be run one at a time:
//   address     native tests and the addon's tests with AddressSanitizer; the native tests look for leaks too
//   undefined   the same tests with UndefinedBehaviorSanitizer
//   thread      with ThreadSanitizer the native tests whose work is split over threads
//
// address and undefined, asked for together, share one build and one run.
//
//   node scripts/sanitize.mjs [--part NAME]… [--unless-recorded] [--record] [TEST…]
//
// TEST names JavaScript test files (default: addon). --record writes what was run, with a hash of the native sources, into
// native/test/sanitized.json; --unless-recorded does nothing when that file has this hash, so unchanged sources are not tested twice.
// Node itself is not instrumented: the sanitizer's library is preloaded, and leaks are not looked for, since Node frees little at exit.
import { execFileSync, spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'

const root = join(import.meta.dirname, '..')
const recordPath = join(root, 'native', 'test', 'sanitized.json')
const jobs = process.env.JOBS ?? String(availableParallelism())

const library = (name) => execFileSync('g++', [`-print-file-name=${name}`], { encoding: 'utf8' }).trim()

const PARTS = {
  address: {
    sanitizers: 'address',
    folder: 'build-asan',
    addon: true,
    env: {},
    // libstdc++ is preloaded too: the sanitizer looks up the function that throws exceptions when it starts, before the addon is there.
    addonEnv: () => ({
      LD_PRELOAD: `${library('libasan.so')} ${library('libstdc++.so')}`,
      ASAN_OPTIONS: 'detect_leaks=0',
    }),
  },
  undefined: {
    sanitizers: 'undefined',
    folder: 'build-ubsan',
    addon: true,
    env: { UBSAN_OPTIONS: 'print_stacktrace=1:halt_on_error=1' },
    addonEnv: () => ({}),
  },
  thread: {
    sanitizers: 'thread',
    folder: 'build-tsan',
    addon: false,
    env: { TSAN_OPTIONS: 'halt_on_error=1' },
    cases: ['pool', 'invarian', 'same_bits', 'shares_weights'],
  },
}
const BOTH = {
  ...PARTS.address,
  sanitizers: 'address;undefined',
  folder: 'build-asan-ubsan',
  env: { ...PARTS.address.env, ...PARTS.undefined.env },
}

/** The builds that the parts need, each with the parts that it stands for. */
function buildsOf(parts) {
  const both = parts.includes('address') && parts.includes('undefined')
  const rest = parts.filter((name) => !both || !['address', 'undefined'].includes(name))
  return [
    ...(both ? [{ names: ['address', 'undefined'], part: BOTH }] : []),
    ...rest.map((name) => ({ names: [name], part: PARTS[name] })),
  ]
}

/** Everything that the builds are made of: sources, flags and the build itself. The emulated GPU and the fuzz targets have builds of their own. */
function sourcesHash() {
  const files = readdirSync(join(root, 'native'), { recursive: true, encoding: 'utf8' })
    .filter((name) => /\.(cc|h|txt)$/.test(name) && !/^test\/(emulator|fuzz)\//.test(name))
    .map((name) => join('native', name))
  const hash = createHash('sha256')
  for (const file of [...files, 'CMakeLists.txt', join('cmake', 'ImplexSources.cmake'), 'sources.json'].sort()) {
    hash
      .update(`${file}\0`)
      .update(readFileSync(join(root, file)))
      .update('\0')
  }
  return hash.digest('hex')
}

function run(command, args, env = {}) {
  console.log(`> ${command} ${args.join(' ')}`)
  const { status, error } = spawnSync(command, args, { cwd: root, stdio: 'inherit', env: { ...process.env, ...env } })
  if (error) console.error(error.message)
  return status === 0
}

function build({ sanitizers, folder, addon }) {
  const options = [`-DIMPLEX_SANITIZE=${sanitizers}`, `-DIMPLEX_BUILD_ADDON=${addon ? 'ON' : 'OFF'}`]
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

function runPart(part, tests) {
  if (!build(part)) return false
  if (!run(join(root, part.folder, 'implex_native_tests'), part.cases ?? [], part.env)) return false
  if (!part.addon) return true
  return run(process.execPath, ['dist/test/run.js', ...tests], {
    ...part.env,
    ...part.addonEnv(),
    IMPLEX_NATIVE: join(root, part.folder, 'implex.node'),
    IMPLEX_TEST_TIMEOUT: process.env.IMPLEX_TEST_TIMEOUT ?? '1200',
  })
}

function main() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      part: { type: 'string', multiple: true, default: Object.keys(PARTS) },
      record: { type: 'boolean', default: false },
      'unless-recorded': { type: 'boolean', default: false },
    },
  })
  const unknown = values.part.find((name) => !Object.hasOwn(PARTS, name))
  if (unknown !== undefined) {
    console.error(`--part ${unknown}: there is no such part; the parts are ${Object.keys(PARTS).join(', ')}`)
    return 2
  }
  const sources = sourcesHash()
  if (values['unless-recorded'] && existsSync(recordPath)) {
    const record = JSON.parse(readFileSync(recordPath, 'utf8'))
    if (record.sources === sources && values.part.every((name) => Object.hasOwn(record.parts, name))) {
      console.log(`these native sources have passed the sanitizers: ${recordPath.slice(root.length + 1)}`)
      return 0
    }
  }
  const tests = positionals.length > 0 ? positionals : ['addon']
  const parts = {}
  for (const { names, part } of buildsOf(values.part)) {
    const start = performance.now()
    const clean = runPart(part, tests)
    const seconds = Math.round((performance.now() - start) / 1000)
    for (const name of names) parts[name] = { clean, seconds, together: names.length > 1 ? names : undefined }
  }
  for (const [name, { clean, seconds }] of Object.entries(parts)) {
    console.log(`${clean ? 'clean ' : 'FAILED'} ${name} (${seconds} s)`)
  }
  if (!Object.values(parts).every(({ clean }) => clean)) return 1
  if (values.record) {
    const compiler = execFileSync('g++', ['--version'], { encoding: 'utf8' }).split('\n')[0]
    writeFileSync(recordPath, `${JSON.stringify({ sources, compiler, tests, parts }, null, 2)}\n`)
  }
  return 0
}

process.exitCode = main()
