/**
 * Finds and loads the `.node` file of the engine. No other file does this.
 */
import { existsSync, readFileSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { ImplexError } from '../core/errors.js'
import type { NativeBinding } from './binding.js'

/** A place where the addon was looked for, and why it was not taken from there. */
export interface NativeAttempt {
  path: string
  reason: string
}

export interface NativeLocation {
  /** The file in use; undefined when there is none. */
  path?: string
  attempts: NativeAttempt[]
  /** The package's folder. */
  root: string
  /** What loadBinding() throws, when `path` is undefined. */
  error?: ImplexError
}

/** Loads the addon if it is not, and says where from or why not. Does not throw. */
export function nativeLocation(): NativeLocation {
  const { binding: _, ...location } = load()
  return location
}

/**
 * The addon's exports as they are. Loaded at first use, from IMPLEX_NATIVE if that is set and from nowhere else then; otherwise from
 * build/Release (node-gyp) or build-cmake/Release (CMake) in the package's folder.
 * @throws ImplexError ERR_NATIVE_MISSING listing every path tried and what to run
 */
export function loadBinding(): NativeBinding {
  const { binding, error } = load()
  if (binding === undefined) throw error
  return binding
}

interface Loaded extends NativeLocation {
  binding?: NativeBinding
}

let loaded: Loaded | undefined

/** A failure is not remembered: the user may build, or set IMPLEX_NATIVE, and try again. */
function load(): Loaded {
  if (loaded !== undefined) return loaded
  const root = packageRoot()
  const override = process.env.IMPLEX_NATIVE
  const paths = override
    ? [resolve(override)]
    : ['build', 'build-cmake'].map((folder) => join(root, folder, 'Release', 'implex.node'))
  const attempts: NativeAttempt[] = []
  for (const path of paths) {
    try {
      const binding = loadFile(path)
      loaded = { binding, path, attempts, root }
      return loaded
    } catch (error) {
      attempts.push({ path, reason: error instanceof Error ? error.message : String(error) })
    }
  }
  return { attempts, root, error: missing(root, attempts, override !== undefined && override !== '') }
}

function loadFile(path: string): NativeBinding {
  if (!existsSync(path)) throw new Error('there is no such file')
  // Not require(): that takes a file of another name than *.node for JavaScript.
  const module: { exports: Partial<NativeBinding> } = { exports: {} }
  process.dlopen(module, path)
  const names = [
    'info',
    'probeDevice',
    'openModel',
    'openTrainer',
    'trainMemory',
    'meanRow',
    'createCancel',
    'lockFile',
  ] as const
  const absent = names.filter((name) => typeof module.exports[name] !== 'function')
  if (absent.length > 0) throw new Error(`it is not an implex addon of this version (it lacks ${absent.join(', ')})`)
  return module.exports as NativeBinding
}

function missing(root: string, attempts: NativeAttempt[], override: boolean): ImplexError {
  const tried = attempts.map(({ path, reason }) => `  ${path}: ${reason}`).join('\n')
  const remedy = override
    ? 'IMPLEX_NATIVE names the only file that implex tries: correct it or unset it.'
    : `Build it: run \`npm run build:native\` in ${root} (needs a C++20 compiler, make and Python), or \`npm run build:cmake\` (needs CMake); ` +
      'or set IMPLEX_NATIVE to the path of an implex.node built for this platform.'
  return new ImplexError('ERR_NATIVE_MISSING', `the native engine could not be loaded. Tried:\n${tried}\n${remedy}`)
}

/** The nearest folder above this file whose package.json is ours: dist/ lies between in a build, nothing under a TypeScript loader. */
function packageRoot(): string {
  const start = dirname(fileURLToPath(import.meta.url))
  for (let folder = start; ; folder = dirname(folder)) {
    const manifest = join(folder, 'package.json')
    if (existsSync(manifest) && JSON.parse(readFileSync(manifest, 'utf8')).name === 'implex') return folder
    if (folder === dirname(folder)) return resolve(start, '..', '..', '..')
  }
}
