/** The public API: every type that a signature names can be imported, and what implex takes from inside a dependency is pinned. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { readDoc } from './support/doc-blocks.js'
import { type Entry, ENTRIES, exportsOf, typesNamedBy } from './support/public-api.js'
import { repositoryRoot } from './support/shared.js'

const api = suite('public API')
const entries = Object.keys(ENTRIES) as Entry[]

api('the entries are those of package.json', () => {
  const { exports } = JSON.parse(readDoc('package.json'))
  const found = Object.entries<{ types?: string }>(exports)
    .filter(([, { types }]) => types !== undefined)
    .map(([path, { types }]) => [join('implex', path), types!.replace('./', '')])
  assert.equal(Object.fromEntries(found), ENTRIES)
})

api('every type that a public declaration names is exported', () => {
  const names = new Set(entries.flatMap((entry) => exportsOf(entry).map(({ name }) => name)))
  assert.ok(names.has('RewardModel') && names.has('personaExperiment'))
  let seen = 0
  for (const entry of entries) {
    for (const one of exportsOf(entry)) {
      for (const type of typesNamedBy(one)) {
        seen++
        assert.ok(names.has(type), `${entry}: ${one.name} names ${type}, which is not exported`)
      }
    }
  }
  assert.ok(seen > 50, 'the declarations are read')
})

api('a dependency whose inner classes are used has one exact version, and the lock names no place to load from', () => {
  const { dependencies } = JSON.parse(readDoc('package.json'))
  const lock = readDoc('package-lock.json')
  const { packages } = JSON.parse(lock)
  const source = readFileSync(join(repositoryRoot, 'lib', 'text', 'tokenizer.ts'), 'utf8')
  assert.match(source, /from '@huggingface\/tokenizers'/)
  assert.match(dependencies['@huggingface/tokenizers'], /^\d+\.\d+\.\d+$/)
  assert.equal(packages[''].dependencies, dependencies)
  assert.is(packages['node_modules/@huggingface/tokenizers'].version, dependencies['@huggingface/tokenizers'])
  assert.not.match(lock, /"resolved"/)
})

api.run()
