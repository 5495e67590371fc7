// What a packed folder holds, and where it comes from.
import { execFileSync } from 'node:child_process'
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  realpathSync,
  writeFileSync,
} from 'node:fs'
import { dirname, join } from 'node:path'

/** Sources travel too: tests look at them, and a CUDA module can be built on the machine. */
const SOURCES = ['bench', 'cli', 'cmake', 'cuda', 'docs', 'examples', 'lab', 'lib', 'native', 'scripts', 'test']
const FILES = [
  'CMakeLists.txt',
  'LICENSE',
  'binding.gyp',
  'package-lock.json',
  'package.json',
  'sources.json',
  'tsconfig.json',
]
/** Development packages that the compiled tests import. */
const TEST_PACKAGES = ['uvu']

/** Programs and libraries: the first of the places where a build leaves them. */
export function binaries(root) {
  const first = (...paths) => paths.map((path) => join(root, path)).find((path) => existsSync(path))
  const cuda = process.env.IMPLEX_CUDA
  return [
    {
      name: 'the engine (implex.node)',
      path: first('build/Release/implex.node', 'build-cmake/Release/implex.node'),
      to: 'build/Release/implex.node',
      build: 'npm run build:native',
      required: true,
    },
    {
      name: 'the compiled TypeScript (dist)',
      path: first('dist/cli/main.js'),
      build: 'npm run build:ts',
      required: true,
    },
    {
      name: 'the CUDA module (implex_cuda.so)',
      path: cuda
        ? cuda
        : first('build-cmake/Release/implex_cuda.so', 'build-cuda/implex_cuda.so', 'build-native/implex_cuda.so'),
      to: 'build-cmake/Release/implex_cuda.so',
      build: 'cmake -S . -B build-cuda && cmake --build build-cuda --target implex_cuda',
    },
    ...['implex_native_tests', 'implex_parity'].map((program) => ({
      name: `the native program ${program}`,
      path: first(`build-native/${program}`),
      to: `build-native/${program}`,
      build: 'npm run test:native',
    })),
  ]
}

/** Names of packages that a folder needs: those of package.json, TEST_PACKAGES, and theirs. */
function packages(root) {
  const lock = JSON.parse(readFileSync(join(root, 'package-lock.json'), 'utf8')).packages
  const wanted = [...Object.keys(lock[''].dependencies ?? {}), ...TEST_PACKAGES]
  const found = new Set()
  for (const name of wanted) {
    if (found.has(name)) continue
    found.add(name)
    const entry = lock[`node_modules/${name}`]
    if (entry === undefined) throw new Error(`package-lock.json has no ${name}: run \`npm install\``)
    wanted.push(...Object.keys(entry.dependencies ?? {}))
  }
  return [...found].sort()
}

/** The commit, for results measured where there is no git. */
function commitOf(root) {
  try {
    const git = (...args) =>
      execFileSync('git', ['-C', root, ...args], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim()
    return { commit: git('rev-parse', 'HEAD'), dirty: git('status', '--porcelain') !== '' }
  } catch {
    return { commit: null, dirty: null }
  }
}

/** Copies everything. `packed`: the programs and libraries; `absent`: optional ones that are not built. */
export function copyContents(root, out) {
  const copy = (from, to, filter) => {
    mkdirSync(dirname(join(out, to)), { recursive: true })
    cpSync(from, join(out, to), { recursive: true, dereference: true, ...(filter && { filter }) })
  }
  for (const folder of SOURCES) if (existsSync(join(root, folder))) copy(join(root, folder), folder)
  for (const file of FILES) copy(join(root, file), file)
  copy(join(root, 'dist'), 'dist', (path) => !/\.(d\.ts|map)$/.test(path))
  for (const name of packages(root)) {
    const from = join(root, 'node_modules', name)
    if (!existsSync(from)) throw new Error(`node_modules/${name} is absent: run \`npm ci\``)
    copy(from, `node_modules/${name}`)
  }
  const node = join(out, 'node', 'bin', 'node')
  copy(realpathSync(process.execPath), 'node/bin/node')
  const packed = [node]
  const absent = []
  for (const { name, path, to, build } of binaries(root)) {
    if (path === undefined) absent.push({ name, build })
    else if (to !== undefined) {
      copy(path, to)
      packed.push(join(out, to))
    }
  }
  // The modules that the loader's tests open.
  const devices = 'build-native/native/test/device'
  for (const file of existsSync(join(root, devices)) ? readdirSync(join(root, devices)) : []) {
    if (file.endsWith('.so')) copy(join(root, devices, file), `${devices}/${file}`)
  }
  writeFileSync(join(out, 'commit.json'), `${JSON.stringify(commitOf(root))}\n`)
  copy(join(root, 'scripts', 'portable', 'run'), 'run')
  for (const path of ['run', 'scripts/portable/cuda-libs', 'scripts/gpu-session.sh', 'node/bin/node']) {
    if (existsSync(join(out, path))) chmodSync(join(out, path), 0o755)
  }
  return { packed, absent }
}
