/** Every bad checkpoint of test/fixtures/bad-inputs.ts ends in an ImplexError with its code, naming the file or the tensor. */
import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { openCheckpoint, readHead } from '../lib/checkpoint/checkpoint.js'
import { nativeLocation } from '../lib/native/load.js'
import { ImplexError } from '../lib/core/errors.js'
import { BAD_INPUTS, provoke } from './fixtures/bad-inputs.js'
import { skip } from './support/skip.js'
import { temporaryFolder } from './support/tmp.js'

const root = temporaryFolder()

for (const bad of BAD_INPUTS) {
  test(bad.name, async () => {
    if (bad.native && nativeLocation().path === undefined) return skip('the native addon is not built')
    const folder = join(root, 'checkpoint')
    const error = await provoke(bad, folder)
    rmSync(folder, { recursive: true, force: true })
    assert.instance(error, ImplexError)
    const { code, message, path } = error as ImplexError
    assert.is(code, bad.code, message)
    for (const text of bad.says) assert.ok(message.includes(text), `"${text}" is not in: ${message}`)
    // Native errors name the file but carry no path.
    assert.ok(message.includes(path ?? folder), `${path ?? folder} is not in: ${message}`)
    assert.ok(bad.native || path !== undefined)
    assert.ok(message.length < 700 && !/[\n\0]/.test(message), message)
  })
}

test('wrong arguments are TypeErrors and RangeErrors', async () => {
  const wrong = async (run: () => Promise<unknown>, kind: typeof TypeError | typeof RangeError, name: string) => {
    const error = await run().then(
      () => undefined,
      (reason: unknown) => reason,
    )
    assert.instance(error, kind)
    assert.ok((error as Error).message.includes(name))
  }
  await wrong(() => openCheckpoint(7 as never), TypeError, 'path')
  await wrong(() => openCheckpoint(''), TypeError, 'path')
  await wrong(() => openCheckpoint('a\0b'), TypeError, 'path')
  await wrong(() => readHead('.', 0), RangeError, 'hiddenSize')
})

test.run()
