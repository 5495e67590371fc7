/** Both builds compile what sources.json lists: this keeps the list equal to the disk. */
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { repositoryRoot } from './support/shared.js'

test('sources.json lists every native source', () => {
  const check = spawnSync(process.execPath, [join(repositoryRoot, 'scripts', 'sources.mjs'), '--check'], {
    encoding: 'utf8',
  })
  assert.is(check.status, 0, check.stderr)
})

test.run()
