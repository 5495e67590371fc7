/** Rooms of the TypeScript code and who may use whom: imports lead down, never up, and files never in a circle. */
import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, normalize } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { repositoryRoot } from './support/shared.js'

/** From the ground floor up. A file belongs to the longest entry that its path begins with. */
const ROOMS = [
  'lib/core',
  'lib/native',
  'lib/checkpoint',
  'lib/text',
  'lib/data',
  'lib/models',
  'lib/evaluate',
  'lib/train',
  'lib/index.ts',
  'lab/experiments',
  'lab/report',
  'lab/index.ts',
  'lab/recipes',
  'bench/suites',
  'cli',
  'bench',
  'examples',
  'test',
]

/** Paths of the files that `source`, at `file`, imports or loads by relative name. */
function imported(file: string, source: string): string[] {
  const specifiers = source.matchAll(/(?:\bfrom\s+|\bimport\(?\s*|new URL\(\s*)'(\.{1,2}\/[^']+\.js)'/g)
  return Array.from(specifiers, ([, path]) => normalize(join(dirname(file), path!)).replace(/\.js$/, '.ts'))
}

function roomOf(file: string): number {
  const fits = ROOMS.filter((room) => file === room || file.startsWith(`${room}/`))
  return ROOMS.indexOf(fits.sort((a, b) => b.length - a.length)[0] ?? '')
}

/** Imports that lead to a higher room, `from -> to`. */
function upward(files: ReadonlyMap<string, readonly string[]>): string[] {
  return [...files].flatMap(([file, targets]) =>
    targets.filter((target) => roomOf(target) > roomOf(file)).map((target) => `${file} -> ${target}`),
  )
}

/** Files that import each other in a circle, each circle as its path. */
function circles(files: ReadonlyMap<string, readonly string[]>): string[] {
  const found: string[] = []
  const done = new Set<string>()
  const visit = (file: string, path: string[]) => {
    const at = path.indexOf(file)
    if (at >= 0) found.push([...path.slice(at), file].join(' -> '))
    if (at >= 0 || done.has(file)) return
    for (const target of files.get(file) ?? []) visit(target, [...path, file])
    done.add(file)
  }
  for (const file of files.keys()) visit(file, [])
  return found
}

function readFiles(): Map<string, string[]> {
  const names = [...new Set(ROOMS.map((room) => room.split('/')[0]!))].flatMap((folder) =>
    readdirSync(join(repositoryRoot, folder), { recursive: true, encoding: 'utf8' }).map((name) => join(folder, name)),
  )
  const sources = names.filter((name) => name.endsWith('.ts'))
  return new Map(sources.map((file) => [file, imported(file, readFileSync(join(repositoryRoot, file), 'utf8'))]))
}

const layers = suite('layers')
const files = readFiles()

layers('every file has a room, and every import leads to a file', () => {
  assert.ok(files.size > 200)
  assert.equal(
    [...files.keys()].filter((file) => roomOf(file) < 0),
    [],
  )
  const lost = [...files].flatMap(([file, targets]) =>
    targets.filter((to) => !files.has(to)).map((to) => `${file} -> ${to}`),
  )
  assert.equal(
    lost.filter((line) => !line.startsWith('test/')), // tests also load fixtures that are built elsewhere
    [],
  )
})

layers('no import leads upward', () => assert.equal(upward(files), []))

layers('no files import each other in a circle', () => assert.equal(circles(files), []))

layers('the checks find an upward arrow, a higher storey and a circle', () => {
  const source = "import { a } from '../train/options.js'\nconst b = await import('../../cli/exit.js')\n"
  const bad = new Map([
    ['lib/core/a.ts', imported('lib/core/a.ts', source)],
    ['lib/train/options.ts', ['lib/core/a.ts']],
  ])
  assert.equal(upward(bad), ['lib/core/a.ts -> lib/train/options.ts', 'lib/core/a.ts -> cli/exit.ts'])
  assert.equal(circles(bad), ['lib/core/a.ts -> lib/train/options.ts -> lib/core/a.ts'])
})

layers.run()
