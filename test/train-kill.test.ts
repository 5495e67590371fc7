/**
 * `implex train` killed without warning, at random moments, and resumed: the result is that of a run that was left alone. IMPLEX_KILLS: how
 * often it is killed (default 8, in .ci/run 20).
 */
import { readdirSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { seededRandom } from './fixtures/random.js'
import { writeTinyCheckpoint } from './fixtures/tiny-checkpoint.js'
import { implex } from './support/cli.js'
import { pairs, resultOf, writeRows } from './support/train.js'
import { temporaryFolder } from './support/tmp.js'

const KILLS = Number(process.env.IMPLEX_KILLS ?? 8)
const folder = temporaryFolder()
const at = (name: string) => join(folder, name)
await writeTinyCheckpoint(at('model'))
const data = writeRows(at('pairs.jsonl'), pairs(120))
const test = writeRows(at('test.jsonl'), pairs(30, 9))
const env = { XDG_CACHE_HOME: at('xdg') }
const command = (out: string, kind: string) => [
  ...['train', '--model', at('model'), '--kind', kind, '--data', data, '--out', out, '--device', 'cpu', '--quiet'],
  ...['--learning-rate', '1e-3', '--batch-pairs', '8', '--epochs', '2', '--checkpoint-steps', '4'],
  ...['--evaluation', `test=${test}`],
]

const killing = suite('SIGKILL')

killing(`${KILLS} kills at random moments leave a run that ends as if nothing had been`, async () => {
  const log: string[] = []
  const random = seededRandom(Number(process.env.IMPLEX_KILL_SEED ?? 1))
  let kills = 0
  for (let round = 0; kills < KILLS; round++) {
    const kind = round % 2 === 0 ? 'explicit' : 'implicit'
    const undisturbed = at(`undisturbed-${kind}`)
    let length = 0
    if (round < 2) {
      const start = performance.now()
      const { status, stderr } = await implex(command(undisturbed, kind), { env })
      assert.is(status, 0, stderr)
      length = performance.now() - start
    }
    lengths.set(kind, length || lengths.get(kind)!)
    const out = at(`killed-${round}`)
    for (let begun = false; ; begun = true) {
      // Sometimes past the end, so that every moment has its turn.
      const delay = random.unit() * lengths.get(kind)! * 1.1
      const { status, signal, stderr } = await implex([...command(out, kind), ...(begun ? ['--resume'] : [])], {
        env: { ...env, IMPLEX_THREADS: String(1 + random.below(3)) },
        onStart: (child) => kills < KILLS && setTimeout(() => child.kill('SIGKILL'), delay),
      })
      if (signal !== 'SIGKILL') {
        assert.is(status, 0, stderr)
        break
      }
      kills++
      const { steps, checkpoints } = readable(out)
      log.push(
        `kill ${kills}: ${kind}, after ${(delay / 1000).toFixed(2)} s: ${steps} steps in metrics.jsonl, checkpoints ${checkpoints}`,
      )
    }
    assert.equal(resultOf(out), resultOf(undisturbed))
    log.push(`${kind} run ${round}: the same model and metrics as undisturbed`)
    rmSync(out, { recursive: true })
  }
  if (process.env.IMPLEX_KILLS !== undefined) console.log(`\n${log.join('\n')}`)
})

const lengths = new Map<string, number>()

/** What a killed run left, read as anyone would: whole lines, whole JSON. */
function readable(out: string): { steps: number; checkpoints: string } {
  const names = list(out)
  for (const name of ['config.json', 'summary.json']) {
    if (names.includes(name)) JSON.parse(readFileSync(join(out, name), 'utf8'))
  }
  let steps = 0
  if (names.includes('metrics.jsonl')) {
    const text = readFileSync(join(out, 'metrics.jsonl'), 'utf8')
    assert.ok(text === '' || text.endsWith('\n'))
    for (const line of text.split('\n').slice(0, -1)) if (JSON.parse(line).evaluation === undefined) steps++
  }
  const checkpoints = list(join(out, 'checkpoints')).filter((name) => name.startsWith('step-'))
  return { steps, checkpoints: checkpoints.map((name) => Number(name.slice(5))).join(' and ') || 'none' }
}

function list(path: string): string[] {
  try {
    return readdirSync(path)
  } catch {
    return []
  }
}
killing.run()
