/** The native engine, the garbage collector and the end of the process: each in a process of its own. */
import { type SpawnSyncReturns, spawnSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { temporaryFolder } from './support/tmp.js'

const program = join(import.meta.dirname, 'support', 'engine-child.js')

function child(name: string, env: NodeJS.ProcessEnv = {}, ...flags: string[]): SpawnSyncReturns<string> {
  return spawnSync(process.execPath, [...flags, program, name], {
    encoding: 'utf8',
    timeout: 240_000, // under a sanitizer all is twenty times slower
    env: { ...process.env, ...env },
  })
}

function answer(run: SpawnSyncReturns<string>): Record<string, unknown> {
  assert.is(run.status, 0, `${run.signal} ${run.stderr}`)
  return JSON.parse(run.stdout)
}

test('handles are collected while their job runs, which ends well', () => {
  assert.equal(answer(child('gc', {}, '--expose-gc')), {
    collected: ['cancel', 'model'],
    whileRunning: true,
    same: true,
  })
})

test('undisposed models press on the garbage collector', () => {
  const { weightBytes, opened, alive } = answer(child('pressure')) as Record<string, number>
  assert.ok(weightBytes > 40 << 20)
  assert.is(opened, 12)
  assert.ok(alive < 8, `${alive} of 12 models of ${weightBytes} bytes were still alive`)
})

test('a process ends by itself after its last score', () => {
  const run = child('idle')
  const { values, at } = answer(run) as { values: number; at: number }
  assert.is(values, 2)
  assert.ok(Date.now() - at < 1000, 'promptly')
})

test('process.exit() and an uncaught error during a score', () => {
  for (let i = 0; i < 5; i++) {
    const exit = child('exit-in-score')
    assert.is(exit.status, 3, `${exit.signal} ${exit.stderr}`)
  }
  const thrown = child('throw-in-score')
  assert.is(thrown.status, 1, `${thrown.signal} ${thrown.stderr}`)
  assert.match(thrown.stderr, /thrown on purpose/)
})

test('a missing or foreign addon: one error that says what was tried and what to do', () => {
  const text = join(temporaryFolder(), 'not-an-addon')
  writeFileSync(text, 'not a shared library')
  for (const path of ['/nowhere/implex.node', text]) {
    const { name, code, message } = answer(child('missing', { IMPLEX_NATIVE: path })) as Record<string, string>
    assert.is(name, 'ImplexError')
    assert.is(code, 'ERR_NATIVE_MISSING')
    assert.ok(message.includes(`${path}: `))
    assert.match(message, /IMPLEX_NATIVE/)
  }
})

test.run()
