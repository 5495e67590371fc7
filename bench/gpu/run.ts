/**
 * `npm run bench:gpu`: the head's kernels, whole models and PyTorch on one GPU in one go. Protocol: docs/gpu.md.
 *
 *   node dist/bench/gpu/run.js [--device cuda] [--only heads,memory,models,peers] [--seconds 900] [--models NAME,…] [--styles eager,compile,liger]
 *                              [--data FILE] [--pairs 64] [--rounds 5] [--batch 16] [--folder DIR] [--tiny] [--out FILE]
 *
 * IMPLEX_PEER_PYTHON: a Python with torch and transformers, without it PyTorch is left out. --tiny with --device cpu tries everything on a
 * machine without a GPU; its times say nothing. Exit status 1 when a result was wrong or a side failed; promises that are not kept are told.
 */
import { existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { availableParallelism, tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { sizeOfShape } from '../suites/checkpoint.js'
import { gpus } from '../suites/gpu.js'
import { prepareModel, readPairs } from '../suites/models.js'
import { REAL_SHAPES, scaledDown } from '../suites/real-shapes.js'
import { type BenchCase, beginResult, failed, writeResult } from '../suites/result.js'
import { median } from '../suites/statistics.js'
import { short, table } from '../suites/table.js'
import type { Pair } from '../suites/texts.js'
import type { DeviceName } from '../../lib/native/device.js'
import { askInTurn, caseOf } from '../peers/contest.js'
import { Peer } from '../peers/peer.js'
import type { Contest, Paths } from '../peers/rows.js'
import { gpuContests, headContests } from './contests.js'
import { ceilingCases, headCases } from './heads.js'
import { memoryCases } from './memory.js'
import { targetRows, targets } from './targets.js'

const root = resolve(import.meta.dirname, '..', '..', '..')
const { values: flags } = parseArgs({
  options: {
    device: { type: 'string', default: 'cuda' },
    only: { type: 'string', default: 'heads,memory,models,peers' },
    seconds: { type: 'string', default: '900' },
    models: { type: 'string', default: Object.keys(REAL_SHAPES).join(',') },
    styles: { type: 'string', default: 'eager,compile,liger' },
    data: { type: 'string' },
    pairs: { type: 'string', default: '64' },
    rounds: { type: 'string', default: '5' },
    batch: { type: 'string', default: '16' },
    folder: { type: 'string', default: join(tmpdir(), 'implex-bench') },
    tiny: { type: 'boolean', default: false },
    out: { type: 'string', default: 'bench-gpu.json' },
  },
})
const device = flags.device as DeviceName
const only = flags.only.split(',')
const names = flags.models.split(',')
const unknown = names.find((name) => !(name in REAL_SHAPES))
if (unknown !== undefined) {
  console.error(`there is no model shape ${unknown}; there are ${Object.keys(REAL_SHAPES).join(', ')}`)
  process.exit(2)
}
const shapeOf = (name: string) => (flags.tiny ? scaledDown(REAL_SHAPES[name]!) : REAL_SHAPES[name]!)
const length = flags.tiny ? 64 : 2048
const pairCount = flags.tiny ? 2 : Number(flags.pairs)
const end = performance.now() + Number(flags.seconds) * 1000
const notes: string[] = []
const cases: BenchCase[] = []
const add = (item: BenchCase) => {
  cases.push(item)
  process.stderr.write(`${item.name}: ${short(median(item.samples) * 1e3)} ms${failed(item) ? ' WRONG' : ''}\n`)
}

const problem = (text: string) => {
  notes.push(text)
  if (!text.endsWith('no time was left')) process.exitCode = 1
}

/** Checkpoints of the shape, made where they are not there yet, and the data file. */
async function pathsOf(models: readonly string[]): Promise<Paths> {
  const { pairs, folder } = await readPairs({
    pairs: pairCount,
    folder: flags.folder,
    data: flags.data,
  })
  const made = new Map<string, { model: string; reference: string; head: string }>()
  for (const name of models) {
    const size = sizeOfShape(flags.tiny ? `${name}-tiny` : name, shapeOf(name))
    const { options } = await prepareModel(size, { pairs, folder, device, dtype: 'bf16' })
    made.set(name, { model: options.policy, reference: options.reference, head: options.head })
  }
  const data = (count: number) => {
    const file = join(folder, `pairs-${count}.jsonl`)
    const line = ({ prompt, chosen, rejected }: Pair) => JSON.stringify({ prompt, chosen, rejected })
    if (!existsSync(file)) writeFileSync(file, `${pairs.slice(0, count).map(line).join('\n')}\n`)
    return file
  }
  return { model: (name) => made.get(name)!, data }
}

let python = process.env.IMPLEX_PEER_PYTHON
const processors = `0-${availableParallelism() - 1}`

type Peers = Record<'ours' | 'torch', Peer | undefined>
let running: Peers | undefined

function peers(): Peers {
  const program = join(import.meta.dirname, '..', 'peers', 'ours.js')
  running ??= {
    ours: new Peer('ours', [process.execPath, program], processors),
    torch:
      python === undefined
        ? undefined
        : new Peer('torch', [python, join(root, 'bench/peers/torch_gpu.py')], processors),
  }
  return running
}

function endPeers(): void {
  for (const peer of Object.values(running ?? {})) peer?.[Symbol.dispose]()
  running = undefined
}

/** Asks both sides; what fails is noted, and of ours it fails the run. After a side that ended both are started anew. */
async function hold(contest: Contest): Promise<void> {
  if (performance.now() > end) {
    notes.push(`${contest.name}: no time was left`)
    return
  }
  try {
    const { sides, failures } = await askInTurn(contest, peers(), flags.tiny ? 1 : Number(flags.rounds))
    for (const failure of failures) notes.push(`${contest.name}: ${failure}`)
    if (failures.some((failure) => failure.startsWith('ours'))) process.exitCode = 1
    for (const label of Object.keys(sides)) add(caseOf(contest, label, sides))
    for (const peer of Object.values(peers())) await peer?.ask({ op: 'release' })
  } catch (error) {
    notes.push(`${contest.name}: ${error instanceof Error ? error.message : String(error)}`)
    process.exitCode = 1
    endPeers()
  }
}

async function contestCases(versions: Record<string, string>): Promise<void> {
  try {
    for (const [name, value] of Object.entries((await peers().torch?.ask({ op: 'versions' })) ?? {}))
      versions[`peer ${name}`] = String(value)
  } catch (error) {
    problem(`PyTorch was left out: ${error instanceof Error ? error.message : String(error)}`)
    python = undefined
    endPeers()
  }
  for (const name of only.includes('models') ? names : []) {
    if (performance.now() > end) {
      notes.push(`${name}: no time was left`)
      continue
    }
    const contests = gpuContests(await pathsOf([name]), {
      device,
      models: [name],
      styles: flags.styles.split(','),
      pairs: pairCount,
      batch: Number(flags.batch),
      batchTokens: 16384,
      uniform: { count: flags.tiny ? 2 : 8, length },
      single: { count: flags.tiny ? 2 : 32, length: flags.tiny ? 64 : 256 },
    })
    // Only the first shape is trained.
    for (const contest of contests)
      if (name === names[0] || !contest.name.endsWith('training step')) await hold(contest)
  }
  const heads = flags.tiny
    ? ([[33, 2048, 64]] as const)
    : ([
        [8192, 128256, 2048],
        [2048, 128256, 2048],
      ] as const)
  for (const head of only.includes('peers') && python !== undefined ? heads : []) {
    for (const contest of headContests(device, head, flags.tiny ? 0.002 : 0.1)) await hold(contest)
  }
}

const finish = await beginResult('gpu')
const versions: Record<string, string> = {}
const suite = { device, tiny: flags.tiny, end, onCase: add, onProblem: problem }
if (only.includes('heads')) {
  await ceilingCases(suite)
  await headCases(suite)
}
if (only.includes('memory') && performance.now() < end) {
  const shape = flags.tiny ? { rows: 8, vocabulary: 2048, depth: 64 } : { rows: 8192, vocabulary: 128256, depth: 2048 }
  try {
    const found = await memoryCases(device, shape)
    for (const item of found) add(item)
    if (found.length === 0) notes.push('extra memory: there is no nvidia-smi to ask')
  } catch (error) {
    problem(`extra memory: ${error instanceof Error ? error.message : String(error)}`)
  }
}
if (only.includes('models') || only.includes('peers')) {
  if (python === undefined) notes.push('IMPLEX_PEER_PYTHON is not set: PyTorch was left out')
  try {
    await contestCases(versions)
  } catch (error) {
    problem(`models: ${error instanceof Error ? error.message : String(error)}`)
  } finally {
    endPeers()
  }
}

const [first] = names as [string]
const { config } = shapeOf(first)
const number = (key: string) => Number(config[key] ?? config['num_attention_heads'])
const hidden = number('hidden_size')
const width = hidden / number('num_attention_heads')
const attention = hidden * (2 * hidden + 2 * width * number('num_key_value_heads'))
const mlp = (config.model_type === 'gpt_neox' ? 2 : 3) * hidden * number('intermediate_size')
const layers = number('num_hidden_layers')
const body = { matrices: layers * (attention + mlp), layers, attentionWidth: hidden }
const list = targets({ cases, model: first, body, length })

for (const gpu of await gpus()) {
  versions['driver'] = gpu.driver
  notes.push(`${gpu.name} at the end: ${gpu.power} W, ${gpu.temperature} C, ${gpu.smClock} MHz`)
}
mkdirSync(resolve(flags.out, '..'), { recursive: true })
await writeResult(flags.out, { ...finish(cases, versions), targets: list, notes })
for (const note of notes) console.log(note)
console.log(table(['promise', 'measured', 'promised', 'aim', 'kept'], targetRows(list)))
const wrong = cases.filter(failed)
for (const { name, check } of wrong) console.log(`${name} is wrong: ${check!.error}, allowed ${check!.limit}`)
if (wrong.length > 0) process.exitCode = 1
