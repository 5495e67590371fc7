/**
 * `npm run soak -- [--minutes 15] [--seed N] [--only NAME] [--root FOLDER] [--record FILE]`
 *
 * Disturbs every command at random, from a seed, for a bounded time: kills, interrupts, full disks, aborts, closed pipes, files that
 * change, grow, shrink or vanish, outputs that are inputs, templates that never end. After each disturbance it checks what was promised:
 * inputs untouched, outputs whole or resumable to the same bytes, a sentence instead of a stack, and an end in time.
 * --root tests another build of implex, to see that the soak finds the faults that were in it. --record writes the result as JSON.
 */
import { mkdtempSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { seededRandom } from '../fixtures/random.js'
import { repositoryRoot } from '../support/shared.js'
import { Fault, Ground, remove } from './ground.js'
import { SCENARIOS } from './scenarios.js'

interface Tally {
  runs: number
  skipped: number
  faults: number
  seconds: number
  /** First fault, in a line. */
  first?: string
}

const { values } = parseArgs({
  options: {
    minutes: { type: 'string', default: '15' },
    seed: { type: 'string', default: '1' },
    only: { type: 'string' },
    root: { type: 'string', default: repositoryRoot },
    record: { type: 'string' },
  },
})
const seed = Number(values.seed)
const end = performance.now() + Number(values.minutes) * 60_000
const scenarios = SCENARIOS.filter(({ name }) => values.only === undefined || name.includes(values.only))
if (scenarios.length === 0)
  throw new Error(`no scenario has "${values.only}" in its name: ${SCENARIOS.map(({ name }) => name).join(', ')}`)

const random = seededRandom(seed)
const folder = mkdtempSync(join(tmpdir(), 'implex-soak-'))
const ground = new Ground(folder, random, resolve(values.root))
const tallies = new Map<string, Tally>(
  scenarios.map(({ name }) => [name, { runs: 0, skipped: 0, faults: 0, seconds: 0 }]),
)
const started = performance.now()

/** Each scenario once in a new order, again and again, so that a short soak has tried everything. */
function* order() {
  for (;;) {
    const left = [...scenarios]
    while (left.length > 0) yield left.splice(random.below(left.length), 1)[0]!
  }
}

try {
  for (const { name, run } of order()) {
    if (performance.now() > end) break
    const tally = tallies.get(name)!
    const start = performance.now()
    const scratch = ground.scratch()
    try {
      const outcome = await run(ground, scratch)
      if (outcome === 'skipped') tally.skipped++
      else tally.runs++
    } catch (error) {
      if (!(error instanceof Fault)) throw error
      tally.runs++
      tally.faults++
      tally.first ??= error.message.split('\n')[0]!.replaceAll(folder, 'FOLDER').replaceAll(ground.root, 'ROOT')
      console.log(`FAULT ${name}: ${error.message}`)
    }
    tally.seconds += (performance.now() - start) / 1000
    remove(scratch)
  }
} finally {
  remove(folder)
}

for (const [name, { runs, faults, skipped, seconds }] of tallies) {
  console.log(
    `${name.padEnd(28)} ${runs} runs, ${faults} faults${skipped > 0 ? `, ${skipped} skipped` : ''} (${seconds.toFixed(0)} s)`,
  )
}
const faults = [...tallies.values()].reduce((sum, tally) => sum + tally.faults, 0)
const runs = [...tallies.values()].reduce((sum, tally) => sum + tally.runs, 0)
console.log(`${runs} runs, ${faults} faults`)
if (values.record !== undefined) {
  const record = {
    seed,
    minutes: Math.round((performance.now() - started) / 6000) / 10,
    date: new Date().toISOString().slice(0, 10),
    node: process.version,
    runs,
    faults,
    scenarios: Object.fromEntries([...tallies].map(([name, { seconds: _, ...tally }]) => [name, tally])),
  }
  writeFileSync(values.record, `${JSON.stringify(record, null, 2)}\n`)
}
process.exitCode = faults > 0 ? 1 : 0
