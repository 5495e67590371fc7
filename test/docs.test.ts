/**
 * The documentation says what the program does: generated parts are up to date, every command, option and error code is there, links and
 * paths exist, screens fit 80 columns, every public export is in docs/api.md, and the programs of README.md and docs/api.md run.
 *
 * IMPLEX_WRITE_DOCS=1 writes the generated parts anew.
 */
import { spawnSync } from 'node:child_process'
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { tinyAdapter, writeAdapter } from './fixtures/tiny-adapter.js'
import { writeTinyModels } from './fixtures/tiny-models.js'
import { implexHere } from './support/cli.js'
import { docBlocks, docFiles, generate, goldenRecord, readDoc, replaceBlock } from './support/doc-blocks.js'
import { type Entry, ENTRIES, exportsOf } from './support/public-api.js'
import { ARCHITECTURES } from './support/golden.js'
import { repositoryRoot } from './support/shared.js'
import { temporaryFolder } from './support/tmp.js'

/** Folders whose own folders are rooms. */
const HOUSES = ['lib', 'lab', 'native', 'bench']

const docs = suite('documentation')

for (const { file, name, text } of docBlocks()) {
  docs(`${file}: ${name}`, async () => {
    const expected = await generate(name)
    assert.type(expected, 'string', `no block is named ${name}`)
    if (expected !== text && process.env.IMPLEX_WRITE_DOCS === '1') {
      writeFileSync(join(repositoryRoot, file), replaceBlock(readDoc(file), name, expected!))
    } else {
      assert.fixture(text, expected!)
    }
  })
}

docs('every generated part has an end', () => {
  const begun = docFiles().flatMap((file) => readDoc(file).match(/^<!-- generated: /gm) ?? [])
  assert.is(docBlocks().length, begun.length)
})

docs('every command is in docs/cli.md', async () => {
  const { stdout } = await implexHere(['--help'])
  const commands = Array.from(
    stdout.slice(stdout.indexOf('Commands:')).matchAll(/^ {2}([a-z-]+)\b/gm),
    (match) => match[1]!,
  )
  assert.ok(commands.includes('score') && commands.includes('doctor'))
  const blocks = docBlocks()
    .filter(({ file }) => file === 'docs/cli.md')
    .map(({ name }) => name)
  for (const name of ['help', ...commands.map((command) => `help ${command}`)]) assert.ok(blocks.includes(name), name)
})

docs('every error code is in docs/errors.md, and none that does not exist', () => {
  const source = readFileSync(join(repositoryRoot, 'lib', 'core', 'errors.ts'), 'utf8')
  const codes = Array.from(source.matchAll(/\| '(ERR_\w+)'/g), (match) => match[1]!)
  assert.ok(codes.length > 20)
  const listed = Array.from(readDoc('docs/errors.md').matchAll(/^\| `(ERR_\w+)` \|/gm), (match) => match[1]!)
  assert.equal(listed.sort(), codes.sort())
})

/** The names by which a document's headings are linked, as GitHub makes them. */
function anchors(text: string): string[] {
  const headings = text.replaceAll(/^```[\s\S]*?^```/gm, '').matchAll(/^#+ (.+)$/gm)
  return Array.from(headings, ([, heading]) =>
    heading!
      .toLowerCase()
      .replaceAll(/[^\p{L}\p{N}\s_-]/gu, '')
      .replaceAll(' ', '-'),
  )
}

docs('links and named files exist', () => {
  for (const file of docFiles()) {
    const text = readDoc(file)
    for (const [, target, anchor] of text.matchAll(/\]\(([^)#:]+)(?:#([^)]*))?\)/g)) {
      const path = join(dirname(file), target!)
      assert.ok(existsSync(join(repositoryRoot, path)), `${file}: ${target}`)
      if (anchor) assert.ok(anchors(readDoc(path)).includes(anchor), `${file}: ${target}#${anchor}`)
    }
    for (const [, path] of text.matchAll(
      /`((?:lib|lab|cli|native|cuda|models|test|scripts|examples|docs|bench)\/[\w./-]*\w)`/g,
    )) {
      assert.ok(existsSync(join(repositoryRoot, path!)), `${file}: ${path}`)
    }
  }
})

docs('the map in docs/architecture.md has every room', () => {
  const text = readDoc('docs/architecture.md')
  const rooms = HOUSES.flatMap((house) =>
    readdirSync(join(repositoryRoot, house), { withFileTypes: true })
      .filter((entry) => entry.isDirectory() && /^[a-z]/.test(entry.name))
      .map((entry) => `${house}/${entry.name}`),
  )
  assert.ok(rooms.length > 25)
  for (const room of [...rooms, 'cli', 'cuda', 'examples', 'models', 'scripts', 'test']) {
    assert.ok(text.includes(`| \`${room}\` |`), `no row of a table begins with \`${room}\``)
  }
})

docs('screens fit 80 columns', () => {
  for (const file of docFiles()) {
    for (const [, language, text] of readDoc(file).matchAll(/^```(\w*)\n([\s\S]*?)^```/gm)) {
      if (language === 'json' || language === 'jsonl') continue
      for (const line of text!.split('\n')) assert.ok([...line].length <= 80, `${file}: ${line}`)
    }
  }
})

docs('the recorded accuracy is within the bounds', () => {
  const { errors, bounds } = goldenRecord()
  for (const dtype of ['f32', 'bf16'] as const) {
    assert.is(Object.keys(errors[dtype]).length, ARCHITECTURES.length)
    for (const [architecture, of] of Object.entries(errors[dtype])) {
      for (const [name, error] of Object.entries(of))
        assert.ok(error <= bounds[dtype][name as keyof typeof of], `${dtype}, ${architecture}, ${name}`)
    }
  }
})

docs('docs/api.md has each export once, with its declaration and in a program of its section', () => {
  const text = readDoc('docs/api.md')
  const exported = (Object.keys(ENTRIES) as Entry[]).flatMap((entry) =>
    exportsOf(entry).map((one) => ({ ...one, entry })),
  )
  assert.ok(exported.length > 60)
  const documented = Array.from(text.matchAll(/^### (\w+)$/gm), ([, name]) => name!)
  assert.equal([...documented].sort(), exported.map(({ name }) => name).sort())
  for (const name of documented) assert.ok(text.includes(`### ${name}\n\n<!-- generated: api ${name} -->`), name)
  for (const section of text.split(/^(?=## )/m)) {
    const imports = programsOf(section).flatMap((program) =>
      Array.from(program.matchAll(/^import (type )?\{([^}]*)\} from '([^']+)'/gm), ([, type, names, from]) => ({
        isType: type !== undefined,
        names: names!.split(/[\s,]+/),
        from,
      })),
    )
    for (const [, name] of section.matchAll(/^### (\w+)$/gm)) {
      const { entry, isType } = exported.find((one) => one.name === name)!
      const used = imports.some((one) => one.from === entry && one.isType === isType && one.names.includes(name!))
      // A class is a type as well: where only its type is exported, a program imports no more.
      assert.ok(used, `no program of the section imports ${isType ? 'type ' : ''}${name} from ${entry}`)
    }
  }
})

docs('the programs of README.md and docs/api.md are correct TypeScript, and run', async () => {
  const programs = ['README.md', 'docs/api.md'].flatMap((file) =>
    programsOf(readDoc(file)).map((text, i) => ({ name: `${file.replace(/\W/g, '-')}-${i}`, text })),
  )
  assert.ok(programs.length > 10)
  // Inside the package, where its own name leads to dist/lib; run where the paths that they name are.
  const folder = join(repositoryRoot, 'dist', 'programs')
  const place = temporaryFolder()
  const models = await writeTinyModels(join(place, 'models'))
  mkdirSync(join(place, 'path', 'to'), { recursive: true })
  for (const name of ['policy', 'reference'] as const) symlinkSync(models[name], join(place, 'path', 'to', name))
  const projection = {
    name: 'model.layers.0.self_attn.q_proj.weight',
    shape: [64, 64],
    data: new Float32Array(64 * 64),
  }
  const adapter = tinyAdapter(
    { config: { hidden_size: 64 }, tensors: [projection] },
    { targets: ['q_proj'], config: { layers_to_transform: [0] } },
  )
  await writeAdapter(join(place, 'path', 'to', 'adapter'), adapter)
  copyFileSync(join(repositoryRoot, 'examples', 'pairs.jsonl'), join(place, 'pairs.jsonl'))
  rmSync(folder, { recursive: true, force: true })
  mkdirSync(folder, { recursive: true })
  try {
    for (const { name, text } of programs) writeFileSync(join(folder, `${name}.mts`), text)
    const options = '--ignoreConfig --strict --target es2023 --module nodenext --types node'.split(' ')
    const tsc = join(repositoryRoot, 'node_modules', 'typescript', 'bin', 'tsc')
    const files = programs.map(({ name }) => join(folder, `${name}.mts`))
    const check = spawnSync(process.execPath, [tsc, ...options, ...files], { encoding: 'utf8', cwd: repositoryRoot })
    assert.is(check.status, 0, check.stdout)
    // All in one process: each prints its name first, and then something of its own.
    const urls = programs.map(({ name }) => pathToFileURL(join(folder, `${name}.mjs`)).href)
    const all = urls
      .map((url, i) => `console.log('\\nprogram ${programs[i]!.name}'); await import('${url}')`)
      .join('\n')
    const run = spawnSync(process.execPath, ['--input-type=module', '--eval', all], {
      encoding: 'utf8',
      cwd: place,
      env: { ...process.env, XDG_CACHE_HOME: join(place, 'cache') },
    })
    assert.is(run.status, 0, `${run.stdout.slice(-500)}\n${run.stderr}`)
    const said = run.stdout.split(/^program /m).slice(1)
    assert.is(said.length, programs.length)
    for (const text of said) assert.match(text, /\n[\s\S]*\S/, text)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
})

function programsOf(text: string): string[] {
  return Array.from(text.matchAll(/^```ts\n([\s\S]*?)^```/gm), (match) => match[1]!)
}

docs.run()
