/** The line of progress: 80 columns, on a terminal only. */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { Progress, progressLine } from '../cli/progress.js'
import { sleep } from './support/engine.js'

const progress = suite('progress')

progress('says rows, speed, time and, where the end is known, what is left', () => {
  const line = progressLine({ rows: 1200, tokens: 90_000, share: 0.25 }, 60)
  assert.is(line, '1,200 rows  20 rows/s  1,500 tokens/s  01:00  25%  about 03:00 left')
  assert.is(progressLine({ rows: 10, tokens: 100 }, 3700), '10 rows  0 rows/s  0 tokens/s  1:01:40')
})

progress('fits into 80 columns whatever the numbers', () => {
  assert.ok(progressLine({ rows: 1e12, tokens: 1e18, share: 1e-6 }, 1e6).length < 80)
})

const written = async (isTTY: boolean, quiet: boolean) => {
  let text = ''
  const stream = { isTTY, write: (part: string) => (text += part) } as never
  {
    using _ = new Progress(() => ({ rows: 1, tokens: 1 }), quiet, stream)
    await sleep(600)
  }
  return text
}

progress('is drawn on a terminal, and its line is empty in the end', async () => {
  const text = await written(true, false)
  assert.match(text, /\r1 rows/)
  assert.match(text, /\r *\r$/)
  for (const line of text.split('\r')) assert.ok(line.length < 80)
})

progress('is silent where stderr is no terminal, and under --quiet', async () => {
  assert.is(await written(false, false), '')
  assert.is(await written(true, true), '')
})
progress.run()
