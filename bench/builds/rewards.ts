/**
 * Whether two builds give the same rewards, bit for bit, wherever they give a row the same ids. Rows with other ids are counted apart, and
 * so are rows that only one of the builds reads.
 *
 *   node dist/bench/builds/rewards.js BEFORE NOW --golden FOLDER [--golden …] --data FILE [--data …] [--limit ROWS] [--kind KIND …]
 *     [--template NAME] [--out FILE]
 *
 * BEFORE, NOW: the main.js of two compiled command lines. FOLDER: `model`, and for implicit rewards `ref`, for explicit ones
 * `score.safetensors` unless the model has a head. FILE: JSON Lines or one array of rows. --limit: so many rows of each file.
 * The exit status is 1 when a row with equal ids has another reward.
 */
import { spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, dirname, join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { commitOf } from '../suites/commit.js'
import { Peer } from '../peers/peer.js'
import { table } from '../suites/table.js'
import type { Question, RowDigest } from './questions.js'
import { type Counts, countRows, type OutputRow, total } from './bits.js'

const { values: flags, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    golden: { type: 'string', multiple: true, default: [] },
    data: { type: 'string', multiple: true, default: [] },
    kind: { type: 'string', multiple: true, default: ['implicit', 'explicit'] },
    template: { type: 'string', default: 'auto' },
    limit: { type: 'string' },
    cpus: { type: 'string', default: '0,1' },
    out: { type: 'string' },
  },
})
if (positionals.length !== 2 || flags.golden.length === 0 || flags.data.length === 0) {
  console.error('usage: rewards.js BEFORE NOW --golden FOLDER [--golden …] --data FILE [--data …]')
  process.exit(2)
}
const limit = flags.limit === undefined ? Number.POSITIVE_INFINITY : Number(flags.limit)
const folder = mkdtempSync(join(tmpdir(), 'implex-builds-'))
const data = join(folder, 'rows.jsonl')

/** The rows of a file as lines; an array's rows are written anew. */
function linesOf(file: string): string[] {
  const text = readFileSync(file, 'utf8')
  const lines = text.trimStart().startsWith('[')
    ? (JSON.parse(text) as unknown[]).map((row) => JSON.stringify(row))
    : text.split('\n').filter((line) => line.trim() !== '')
  return lines.slice(0, limit)
}

/** The folder above a command line that has the rest of its build. */
function distOf(main: string): string {
  for (let at = dirname(resolve(main)); at !== dirname(at); at = dirname(at)) {
    if (existsSync(join(at, 'lib', 'data', 'encode.js'))) return at
  }
  throw new Error(`${main} is in no compiled build`)
}

class Build implements Disposable {
  readonly #side: Peer

  constructor(
    readonly name: string,
    private readonly main: string,
  ) {
    const side = join(import.meta.dirname, 'side.js')
    this.#side = new Peer(name, [process.execPath, side, distOf(main)], flags.cpus)
  }

  async ids(model: string, kind: Question['kind']): Promise<RowDigest[]> {
    const question: Question = {
      stage: 'lines',
      kind,
      border: 'whole',
      model,
      template: flags.template,
      data,
      each: true,
    }
    const answer = await this.#side.ask({ op: 'encode', ...question })
    if (answer.error !== undefined) throw new Error(`${this.name}: ${answer.error}`)
    return answer.each as RowDigest[]
  }

  rewards(golden: string, kind: Question['kind']): OutputRow[] {
    const out = join(folder, 'rewards.jsonl')
    const [reference, head] = [join(golden, 'ref'), join(golden, 'score.safetensors')]
    const args = [
      ...['score', '--model', join(golden, 'model'), '--kind', kind, '--data', data, '--out', out, '--force'],
      ...['--template', flags.template, '--on-long', 'skip', '--on-error', 'skip', '--no-cache', '--quiet'],
      ...(kind === 'implicit' && existsSync(reference) ? ['--reference', reference] : []),
      ...(kind === 'explicit' && existsSync(head) ? ['--head', head] : []),
    ]
    rmSync(out, { force: true })
    const { status, stderr } = spawnSync(process.execPath, [this.main, ...args], { encoding: 'utf8' })
    const lines = existsSync(out) ? readFileSync(out, 'utf8').split('\n').filter(Boolean) : []
    if (lines.length !== rows) throw new Error(`${this.name}, ${golden}, ${kind}: status ${status}; ${stderr.trim()}`)
    return lines.map((line) => JSON.parse(line) as OutputRow)
  }

  [Symbol.dispose](): void {
    this.#side[Symbol.dispose]()
  }
}

const files = flags.data.map((file) => ({ file, lines: linesOf(file) }))
const rows = files.reduce((sum, { lines }) => sum + lines.length, 0)
writeFileSync(data, files.map(({ lines }) => lines.map((line) => `${line}\n`).join('')).join(''))

const results: ({ model: string; kind: string; file: string } & Counts)[] = []
try {
  using before = new Build('before', positionals[0]!)
  using now = new Build('now', positionals[1]!)
  for (const golden of flags.golden) {
    for (const kind of flags.kind as Question['kind'][]) {
      const model = join(golden, 'model')
      const ids = [await before.ids(model, kind), await now.ids(model, kind)] as const
      const rewards = [before.rewards(golden, kind), now.rewards(golden, kind)] as const
      let start = 0
      for (const { file, lines } of files) {
        const part = <T>(list: readonly T[]) => list.slice(start, start + lines.length)
        const counts = countRows(kind, [part(ids[0]), part(ids[1])], [part(rewards[0]), part(rewards[1])])
        results.push({ model: basename(golden), kind, file: basename(file), ...counts })
        start += lines.length
      }
      const sum = total(results.filter((one) => one.model === basename(golden) && one.kind === kind))
      console.error(`${basename(golden)} ${kind}: ${JSON.stringify(sum)}`)
    }
  }
} finally {
  rmSync(folder, { recursive: true, force: true })
}

const sum = total(results)
const columns = Object.keys(sum) as (keyof Counts)[]
const groups = [...new Set(results.map(({ model, kind }) => `${model} ${kind}`))]
const lines = groups.map((group) => {
  const counts = total(results.filter(({ model, kind }) => `${model} ${kind}` === group))
  return [group, ...columns.map((column) => String(counts[column]))]
})
process.stdout.write(table(['model', ...columns], [...lines, ['all', ...columns.map((column) => String(sum[column]))]]))
if (sum.otherRewards > 0) process.exitCode = 1
if (flags.out !== undefined) {
  const [commitBefore, commitNow] = await Promise.all(positionals.map((main) => commitOf(dirname(distOf(main)))))
  const record = {
    what: 'Rewards of two builds on the same rows: those of rows with equal ids, bit for bit',
    date: new Date().toISOString().slice(0, 10),
    commits: { before: commitBefore, now: commitNow },
    node: process.versions.node,
    rowsPerFile: Number.isFinite(limit) ? limit : 'all',
    template: flags.template,
    total: sum,
    results,
  }
  writeFileSync(flags.out, `${JSON.stringify(record, null, 1)}\n`)
}
