/** The words of the project's files: American spelling, and doc comments that are sentences. */
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { docFiles } from './support/doc-blocks.js'
import { repositoryRoot } from './support/shared.js'

/** British spellings, each split so that this file does not contain it. */
const BRITISH = [
  ['tokeni', 's'],
  ['optimi', 's(e|ing|ation)'],
  ['initiali', 's'],
  ['normali', 's'],
  ['recogni', 's'],
  ['generali', 's'],
  ['seriali', 's'],
  ['summari', 's'],
  ['minimi', 's'],
  ['maximi', 's'],
  ['quanti', 's'],
  ['organi', 's(e|ing|ation)'],
  ['finali', 's'],
  ['standardi', 's'],
  ['behav', 'iour'],
  ['col', 'our'],
  ['neighb', 'our'],
  ['fav', 'our'],
  ['licen', 'ce'],
  ['cent', 're\\b'],
  ['lear', 'nt\\b'],
]
const british = new RegExp(BRITISH.map((parts) => parts.join('')).join('|'), 'i')

/** A doc comment that is half a sentence: "Of the batch." */
const HALF = /\/\*\*(?:\s|\*(?!\/))*Of\s/

/** Rooms whose doc comments are whole sentences. */
const ROOMS = ['lib/core', 'lib/native', 'lib/checkpoint', 'lib/text', 'lab', 'bench', 'cli', 'test']

function sources(room: string, ends: RegExp): string[] {
  return readdirSync(join(repositoryRoot, room), { recursive: true, encoding: 'utf8' })
    .map((name) => `${room}/${name}`)
    .filter((file) => ends.test(file) && !/__pycache__|\/results\//.test(file))
}

/** Lines of the files that the pattern matches, as `file:line: text`. */
function found(files: readonly string[], pattern: RegExp): string[] {
  return files.flatMap((file) =>
    readFileSync(join(repositoryRoot, file), 'utf8')
      .split('\n')
      .flatMap((text, i) => (pattern.test(text) ? [`${file}:${i + 1}: ${text.trim()}`] : [])),
  )
}

const prose = suite('prose')

prose('spelling is American', () => {
  const code = ['lib', 'lab', 'bench', 'cli', 'examples', 'scripts', 'test'].flatMap((room) =>
    sources(room, /\.(ts|mjs|py|sh)$/),
  )
  const documents = [...docFiles(), 'cuda/README.md', 'models/base/README.md', 'examples/pairs.jsonl']
  assert.ok(code.length > 250)
  // The generator of docs/experiments.md replaces a word of old records, so it has to name it.
  const kept = /^bench\/experiment-tables\.ts:/
  assert.equal(
    found([...code, ...documents], british).filter((line) => !kept.test(line)),
    [],
  )
})

prose('no doc comment begins with "Of"', () => {
  const files = ROOMS.flatMap((room) => sources(room, /\.ts$/))
  const half = files.filter((file) => HALF.test(readFileSync(join(repositoryRoot, file), 'utf8')))
  assert.equal(half, [])
})

prose('the patterns find what they are for', () => {
  for (const word of ['tokeni' + 'sing', 'COL' + 'OUR', 'Optimi' + 'ser:']) assert.ok(british.test(word), word)
  for (const word of ['optimistic', 'organism', 'minimum', 'learning']) assert.not(british.test(word), word)
  assert.ok(HALF.test('/**' + ' Of the batch. */') && HALF.test('/**\n   * ' + 'Of it.\n */'))
  assert.not(HALF.test('/** The size of it. Of course. */'))
})

prose.run()
