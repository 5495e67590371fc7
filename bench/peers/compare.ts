/**
 * implex against PyTorch on the same processors in one go: both load once, then each case is asked of its sides in turn, round after round.
 *
 *   node dist/bench/peers/compare.js [--data FILE] [--rounds 5] [--pairs 4,4] [--batch 4] [--cpus 0,1] [--only TEXT] [--skip TEXT] [--quick] [--out FILE]
 *
 * IMPLEX_PEER_PYTHON: a Python with torch, transformers and safetensors. --data: JSONL of preference pairs, without it made-up texts.
 * --only, --skip: cases with or without this text in their name. --pairs: pairs per case at 22 and at 100 million parameters. --batch: pairs in a padded batch of the peer.
 */
import { existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { LARGE_VOCABULARY, SIZES } from '../suites/checkpoint.js'
import { prepareModel, readPairs } from '../suites/models.js'
import { type BenchCase, beginResult, writeResult } from '../suites/result.js'
import { median } from '../suites/statistics.js'
import { mebibytes, short, table } from '../suites/table.js'
import type { Pair } from '../suites/texts.js'
import { askInTurn, caseOf } from './contest.js'
import { Peer } from './peer.js'
import { contests, type Paths } from './rows.js'

const root = resolve(import.meta.dirname, '..', '..', '..')
const MEMORY_LIMIT = 300 * 2 ** 20

const { values: flags } = parseArgs({
  options: {
    data: { type: 'string' },
    rounds: { type: 'string', default: '5' },
    pairs: { type: 'string', default: '4,4' },
    batch: { type: 'string', default: '4' },
    cpus: { type: 'string', default: '0,1' },
    only: { type: 'string', default: '' },
    skip: { type: 'string' },
    quick: { type: 'boolean', default: false },
    folder: { type: 'string', default: join(tmpdir(), 'implex-bench') },
    out: { type: 'string', default: join(root, 'bench', 'results', 'peers.json') },
  },
})

/** Makes checkpoints and data files before anything starts. */
async function prepare(): Promise<{ paths: Paths; counts: Record<string, number> }> {
  const [small = 4, large = 4] = flags.pairs.split(',').map(Number)
  const counts: Record<string, number> = flags.quick ? { '22M': 1 } : { '22M': small, '100M': large }
  const { pairs, folder } = await readPairs({
    pairs: Math.max(small, large),
    folder: flags.folder,
    ...(flags.data === undefined ? {} : { data: flags.data }),
  })
  const models = new Map<string, { model: string; reference: string; head: string }>()
  const sizes = [...Object.keys(counts).map((name) => SIZES[name as keyof typeof SIZES]), LARGE_VOCABULARY]
  for (const size of sizes) {
    const { options } = await prepareModel(size, { pairs, folder, device: 'cpu', dtype: 'f32' })
    models.set(size.name, { model: options.policy, reference: options.reference, head: options.head })
  }
  const data = (count: number) => {
    const file = join(folder, `pairs-${count}.jsonl`)
    const line = ({ prompt, chosen, rejected }: Pair) => JSON.stringify({ prompt, chosen, rejected })
    if (!existsSync(file)) writeFileSync(file, `${pairs.slice(0, count).map(line).join('\n')}\n`)
    return file
  }
  return { paths: { model: (size) => models.get(size)!, data }, counts }
}

async function memoryCase(paths: Paths, count: number): Promise<BenchCase> {
  using peer = new Peer('ours', [process.execPath, join(import.meta.dirname, 'ours.js')], flags.cpus)
  const request = {
    op: 'memory',
    kind: 'implicit',
    dtype: 'f32',
    style: 'shared',
    ...paths.model(LARGE_VOCABULARY.name),
    data: paths.data(count),
  }
  const answer = await peer.ask(request)
  if (answer.error !== undefined) throw new Error(answer.error)
  const extraBytes = answer.extra_bytes as number
  return {
    name: `${LARGE_VOCABULARY.name} extra memory`,
    samples: [answer.seconds!],
    work: {},
    values: { extraBytes, weightBytes: answer.weight_bytes as number, promised: MEMORY_LIMIT },
  }
}

const { paths, counts } = await prepare()
const finish = await beginResult('peers')
const python = process.env.IMPLEX_PEER_PYTHON
if (python === undefined) console.error('IMPLEX_PEER_PYTHON is not set: PyTorch is left out')
const ours = new Peer('ours', [process.execPath, join(import.meta.dirname, 'ours.js')], flags.cpus)
const torch =
  python === undefined ? undefined : new Peer('torch', [python, join(root, 'bench/peers/peer_torch.py')], flags.cpus)
const cases: BenchCase[] = []
const lines: string[][] = []
const versions: Record<string, string> = {}
try {
  for (const [name, value] of Object.entries((await torch?.ask({ op: 'versions' })) ?? {}))
    versions[`peer ${name}`] = String(value)
  const list = contests(paths, { pairs: counts, batch: Number(flags.batch), quick: flags.quick })
  const wanted = (name: string) => name.includes(flags.only) && (flags.skip === undefined || !name.includes(flags.skip))
  for (const contest of list.filter(({ name }) => wanted(name))) {
    const { sides, failures } = await askInTurn(contest, { ours, torch }, flags.quick ? 1 : Number(flags.rounds))
    if (failures.length > 0) {
      console.error(`${contest.name} failed: ${failures.join('; ')}`)
      process.exitCode = 1
      continue
    }
    lines.push([contest.name, '', '', '', '', ''])
    for (const label of Object.keys(sides)) {
      const item = caseOf(contest, label, sides)
      cases.push(item)
      const { ratio, promised } = item.values!
      const kept = ratio === undefined || promised === undefined ? '' : ratio >= promised ? 'yes' : 'NO'
      const error = item.check?.error.toExponential(0) ?? ''
      lines.push([
        `  ${label}`,
        short(median(item.samples)),
        ratio === undefined ? '' : short(ratio),
        promised === undefined ? '' : `>= ${promised}`,
        kept,
        error,
      ])
      if (item.check !== undefined && !(item.check.error <= item.check.limit)) process.exitCode = 1
    }
    process.stderr.write('.')
  }
  if (wanted(`${LARGE_VOCABULARY.name} extra memory`)) {
    const item = await memoryCase(paths, counts['22M']!)
    cases.push(item)
    const { extraBytes, promised } = item.values as Record<'extraBytes' | 'promised', number>
    lines.push([
      item.name,
      mebibytes(extraBytes),
      '',
      `<= ${mebibytes(promised)}`,
      extraBytes <= promised ? 'yes' : 'NO',
      '',
    ])
  }
} finally {
  ours[Symbol.dispose]()
  torch?.[Symbol.dispose]()
}
process.stdout.write(`\n${table(['case: side', 'median s', 'ratio', 'promised', 'kept', 'differs'], lines)}`)
mkdirSync(dirname(resolve(flags.out)), { recursive: true })
await writeResult(flags.out, finish(cases, versions))
