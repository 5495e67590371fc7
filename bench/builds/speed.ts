/**
 * How fast rows become token ids, for one build or several in one go: each is a process of its own, and all are asked in turn, round after
 * round.
 *
 *   node dist/bench/builds/speed.js --data FILE --model FOLDER [--model …] [NAME=DIST …] [--rounds 15] [--kind KIND …]
 *     [--stage STAGE …] [--border whole|separate] [--template NAME] [--cpus 0,1] [--out FILE]
 *
 * DIST: the folder of a compiled build. Without one, this build alone is measured, as "this". The first one is what others are compared
 * with. Stages are in questions.ts. The ids of the builds are compared too, and it is said where they differ.
 */
import { basename, dirname, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import type { Border } from '../../lib/checkpoint/trained-with.js'
import { type Answer, Peer } from '../peers/peer.js'
import { type BenchCase, beginResult, writeResult } from '../suites/result.js'
import { median, ratioOfMedians, verdict } from '../suites/statistics.js'
import { short, table } from '../suites/table.js'
import { type Question, STAGES, type Stage } from './questions.js'

const { values: flags, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    data: { type: 'string' },
    model: { type: 'string', multiple: true },
    kind: { type: 'string', multiple: true, default: ['implicit', 'explicit'] },
    stage: { type: 'string', multiple: true, default: [...STAGES] },
    border: { type: 'string', default: 'whole' },
    template: { type: 'string', default: 'auto' },
    rounds: { type: 'string', default: '15' },
    warmup: { type: 'string', default: '2' },
    cpus: { type: 'string', default: '0,1' },
    out: { type: 'string' },
  },
})
const { data, model: models = [] } = flags
if (data === undefined || models.length === 0) {
  console.error('usage: speed.js --data FILE --model FOLDER [--model FOLDER …] [NAME=DIST …]')
  process.exit(2)
}

const builds = positionals.length === 0 ? [`this=${resolve(import.meta.dirname, '..', '..')}`] : positionals
const sides = builds.map((build) => {
  const at = build.indexOf('=')
  const [name, dist] = [build.slice(0, at), build.slice(at + 1)]
  if (at < 1) throw new Error(`"${build}" is not NAME=DIST`)
  return new Peer(
    name,
    [process.execPath, '--expose-gc', resolve(import.meta.dirname, 'side.js'), resolve(dist)],
    flags.cpus,
  )
})

interface Asked {
  samples: number[]
  cpu: number[]
  last: Answer
}

/** The order of the sides turns with the rounds. */
async function ask(question: Question): Promise<Asked[]> {
  const asked: Asked[] = sides.map(() => ({ samples: [], cpu: [], last: {} }))
  const warmup = Number(flags.warmup)
  for (let round = -warmup; round < Number(flags.rounds); round++) {
    const order = sides.map((_, i) => (i + round + warmup) % sides.length)
    for (const i of order) {
      const answer = await sides[i]!.ask({ op: 'encode', ...question })
      if (answer.error !== undefined) throw new Error(`${sides[i]!.name}: ${answer.error}`)
      asked[i]!.last = answer
      if (round < 0) continue
      asked[i]!.samples.push(answer.seconds!)
      asked[i]!.cpu.push(answer.cpuSeconds as number)
    }
  }
  return asked
}

const finish = await beginResult('encode')
const cases: BenchCase[] = []
const lines: string[][] = []
const differing: string[] = []
/** A checkpoint's folder is often called "model": then the one above it tells more. */
const nameOf = (folder: string) =>
  basename(folder) === 'model' ? basename(dirname(resolve(folder))) : basename(resolve(folder))
try {
  for (const model of models) {
    for (const kind of flags.kind as Question['kind'][]) {
      for (const stage of flags.stage as Stage[]) {
        const asked = await ask({ stage, kind, border: flags.border as Border, model, template: flags.template, data })
        const [first] = asked as [Asked]
        asked.forEach(({ samples, cpu, last }, i) => {
          const name = `${nameOf(model)} ${kind} ${stage}`
          const ratio = ratioOfMedians(first.cpu, cpu)
          if (last.digest !== first.last.digest) differing.push(`${name}: ${sides[i]!.name}`)
          const { tokens, rows, errors } = last as unknown as Record<'tokens' | 'rows' | 'errors', number>
          cases.push({
            name: `${name}: ${sides[i]!.name}`,
            samples,
            work: { tokens },
            values: {
              rows,
              errors,
              cpuSeconds: median(cpu),
              ...(i === 0
                ? {}
                : {
                    ratio: ratio.value,
                    low: ratio.low,
                    high: ratio.high,
                    sameIds: Number(last.digest === first.last.digest),
                  }),
            },
          })
          const compared = i === 0 ? ['', ''] : [`${short(ratio.low)} to ${short(ratio.high)}`, verdict(ratio)]
          lines.push([
            `${name}: ${sides[i]!.name}`,
            short(median(samples) * 1e3),
            short(median(cpu) * 1e3),
            i === 0 ? '' : ratio.value.toFixed(3),
            ...compared,
          ])
        })
      }
    }
  }
} finally {
  for (const side of sides) side[Symbol.dispose]()
}
process.stdout.write(table(['case', 'ms', 'CPU ms', 'ratio', '95% interval', 'is'], lines))
if (differing.length > 0) console.log(`other ids than ${sides[0]!.name}: ${differing.join('; ')}`)
if (flags.out !== undefined) await writeResult(flags.out, finish(cases))
