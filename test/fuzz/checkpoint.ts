/**
 * Fuzzes the readers of checkpoints: config.json, the shard index, safetensors headers, and with --native the loading of weights and a score.
 *
 *   node dist/test/fuzz/checkpoint.js [--seconds 60] [--seed 1] [--native] [--out FOLDER] [--run N]
 *
 * Each run takes a valid tiny checkpoint, mutates it and opens it. It must resolve to a spec that holds together, or reject with an
 * ImplexError that names the folder. Anything else, a run above 2 seconds and a crash of the process are findings: they are printed with the
 * command that repeats them, and the folder is kept under --out (default: fuzz-findings in the temporary folder). Exit status 1 then.
 * The runs happen in a child process; --run does one of them in this process, for a debugger. TMPDIR in memory makes it several times faster.
 */
import { type ChildProcess, fork } from 'node:child_process'
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { type Checkpoint, openCheckpoint, readHead } from '../../lib/checkpoint/checkpoint.js'
import { bytesPerElement } from '../../lib/checkpoint/dtype.js'
import { ImplexError } from '../../lib/core/errors.js'
import { seededRandom } from '../fixtures/random.js'
import { TINY_FAMILIES, type TinyCheckpointOptions, writeTinyCheckpoint } from '../fixtures/tiny-checkpoint.js'
import { type Image, mutate } from './mutate.js'

const HANG_MS = 2000

const { values: options } = parseArgs({
  options: {
    seconds: { type: 'string', default: '60' },
    seed: { type: 'string', default: '1' },
    native: { type: 'boolean', default: false },
    out: { type: 'string', default: join(tmpdir(), 'fuzz-findings') },
    run: { type: 'string' },
    child: { type: 'string' },
  },
})
const seed = Number(options.seed)

/** What a run came to. */
interface Outcome {
  /** An error's code, or how far it got without one. */
  kind: string
  finding?: string
  /** The message without names and numbers, to see how many different ones were reached. */
  message?: string
}

const SMALL: TinyCheckpointOptions = {
  hiddenSize: 8,
  heads: 2,
  vocabSize: 40,
  intermediateSize: 12,
  tokenizer: false,
  maxPositions: 64,
}
const VARIANTS: TinyCheckpointOptions[] = [
  {},
  { style: 4, dtype: 'bf16' },
  { tied: true, dtype: 'f16' },
  { head: 'extra' },
  { head: 'instead', style: 4 },
  { bare: true },
  { shardBytes: 1500 },
  { attentionBias: true, rope: { rope_type: 'linear', factor: 2 } },
]

async function goodImages(folder: string): Promise<Image[]> {
  const images: Image[] = []
  for (const family of TINY_FAMILIES) {
    for (const [i, variant] of VARIANTS.entries()) {
      const path = join(folder, `${family}-${i}`)
      await writeTinyCheckpoint(path, { ...SMALL, family, ...variant })
      images.push(new Map(readdirSync(path).map((name) => [name, readFileSync(join(path, name))])))
    }
  }
  return images
}

function makeInput(images: Image[], run: number, folder: string): void {
  const random = seededRandom(seed * 1_000_003 + run)
  const image: Image = new Map(random.pick(images))
  mutate(random, image)
  rmSync(folder, { recursive: true, force: true })
  mkdirSync(folder, { recursive: true })
  for (const [name, content] of image) {
    if (content === 'folder') mkdirSync(join(folder, name))
    else writeFileSync(join(folder, name), content)
  }
}

async function tryInput(folder: string): Promise<Outcome> {
  try {
    const checkpoint = await openCheckpoint(folder)
    checkSpec(checkpoint)
    const kind = options.native ? await scoreOnce(checkpoint) : 'resolved'
    if (checkpoint.spec.weights.some((weight) => weight.role === 'head')) {
      await readHead(folder, checkpoint.spec.hiddenSize)
    }
    return { kind }
  } catch (error) {
    return judge(error, folder)
  }
}

function judge(error: unknown, folder: string): Outcome {
  if (!(error instanceof ImplexError)) {
    return {
      kind: 'finding',
      finding: error instanceof Error ? (error.stack ?? error.message) : `threw ${String(error)}`,
    }
  }
  const kind = error.code
  if (!error.message.includes(folder))
    return { kind, finding: `the message does not name the folder: ${error.message}` }
  if (error.message.length > 2000) return { kind, finding: `the message is ${error.message.length} characters long` }
  if (/[\p{Cc}]/u.test(error.message))
    return { kind, finding: `control characters in: ${JSON.stringify(error.message)}` }
  if (kind === 'ERR_INTERNAL') return { kind, finding: error.message }
  return { kind, message: error.message.replaceAll(folder, '').replace(/"[^"]*"|\[[^\]]*\]|-?[\d.]+(e[+-]\d+)?/g, '') }
}

/** What native code and everything after may rely on. */
function checkSpec({ spec, path }: Checkpoint): void {
  const check = (holds: boolean, what: string) => {
    if (!holds) throw new Error(`broken promise: ${what} in ${path}`)
  }
  const sizes = [
    spec.vocabSize,
    spec.hiddenSize,
    spec.layers.length,
    spec.heads,
    spec.kvHeads,
    spec.headDim,
    ...spec.layers.map(({ intermediateSize }) => intermediateSize),
  ]
  check(
    [...sizes, spec.maxPositions].every((size) => Number.isSafeInteger(size) && size > 0),
    'sizes',
  )
  check(spec.heads % spec.kvHeads === 0, 'kvHeads divides heads')
  for (const { rotaryDim, inverseFrequencies, scale } of spec.ropes) {
    check(rotaryDim % 2 === 0 && rotaryDim <= spec.headDim, 'rotaryDim')
    check(inverseFrequencies.length === rotaryDim / 2, 'number of frequencies')
    check(
      inverseFrequencies.every((frequency) => frequency > 0 && frequency <= 1),
      'frequencies',
    )
    check(Number.isFinite(scale) && scale > 0, 'scale of the rotation')
  }
  for (const { rope, window, attentionScale, attentionSoftCap, experts } of spec.layers) {
    check(rope >= -1 && rope < spec.ropes.length, 'rope')
    check(Number.isSafeInteger(window) && window >= 0 && window < 2 ** 31, 'window')
    check(Number.isFinite(attentionScale) && attentionScale > 0, 'attentionScale')
    check(Number.isFinite(attentionSoftCap) && attentionSoftCap >= 0, 'attentionSoftCap')
    check(experts === undefined || (experts.perToken > 0 && experts.perToken <= experts.count), 'experts')
  }
  check(spec.normEps > 0 && spec.normEps <= 1, 'normEps')
  check(new Set(spec.weights.map((weight) => weight.role)).size === spec.weights.length, 'roles are unique')
  for (const { role, file, offset, bytes, dtype, shape, rows } of spec.weights) {
    const elements = shape.reduce((product, size) => product * size, 1)
    check(bytes === elements * bytesPerElement(dtype), `bytes of ${role}`)
    check(offset >= 10 && offset + bytes <= statSync(file).size, `range of ${role}`)
    if (rows)
      check(rows.start + rows.block <= rows.stride && (shape[0] as number) % rows.stride === 0, `rows of ${role}`)
  }
}

/** A prompt with two responses through each read-out that the model has. */
async function scoreOnce({ spec }: Checkpoint): Promise<string> {
  const { openModel } = await import('../../lib/native/handles.js')
  const model = await openModel(spec, { device: 'cpu', dtype: 'f32' })
  try {
    const tokens = Int32Array.from({ length: 9 }, (_, i) => i % spec.vocabSize)
    const segments = Int32Array.of(0, 3, -1, 3, 2, 0, 5, 4, 0)
    const scored = Int32Array.of(1, 2)
    const readouts = [
      ...(model.hasUnembedding ? ['logprob'] : []),
      ...(model.hasHead ? ['reward_last', 'reward_mean'] : []),
    ]
    for (const readout of readouts as ('logprob' | 'reward_last' | 'reward_mean')[]) {
      try {
        const { values } = await model.score({ tokens, segments, scored, readout })
        if (values.length !== 2) throw new Error(`${values.length} values instead of 2`)
      } catch (error) {
        // Scoring knows no file to name.
        if (error instanceof ImplexError && error.code !== 'ERR_INTERNAL') return `not scored: ${error.code}`
        throw error
      }
    }
  } finally {
    model.dispose()
  }
  return 'scored'
}

/** Runs from `first` on, telling the parent before and after each. */
async function childMain(first: number): Promise<void> {
  const root = mkdtempSync(join(tmpdir(), 'implex-fuzz-'))
  process.once('exit', () => rmSync(root, { recursive: true, force: true }))
  process.once('disconnect', () => process.exit())
  // The parent may go away between a run and its report.
  const tell = (message: unknown) => process.send?.(message, undefined, undefined, (error) => error && process.exit())
  const images = await goodImages(root)
  const folder = join(root, 'input')
  for (let run = first; ; run++) {
    try {
      makeInput(images, run, folder)
    } catch {
      tell({ run, outcome: { kind: 'no input made' } })
      continue
    }
    tell({ run, folder })
    const outcome = await tryInput(folder)
    if (outcome.finding !== undefined) keep(folder, run)
    tell({ run, outcome })
  }
}

function keep(folder: string, run: number): string {
  const target = join(options.out, `seed-${seed}-run-${run}`)
  cpSync(folder, target, { recursive: true, force: true })
  return target
}

const totals = new Map<string, number>()
const messages = new Set<string>()
let findings = 0

function found(run: number, what: string): void {
  findings++
  console.log(`FINDING in run ${run}: ${what}\n  kept: ${join(options.out, `seed-${seed}-run-${run}`)}`)
  console.log(
    `  again: node dist/test/fuzz/checkpoint.js --seed ${seed} --run ${run}${options.native ? ' --native' : ''}`,
  )
}

function start(first: number): ChildProcess {
  const args = [
    '--child',
    String(first),
    '--seed',
    options.seed,
    '--out',
    options.out,
    ...(options.native ? ['--native'] : []),
  ]
  return fork(fileURLToPath(import.meta.url), args)
}

/** One child after another, until the time is over: a child that hangs or crashes costs its run and is replaced. */
async function parentMain(): Promise<void> {
  const end = Date.now() + 1000 * Number(options.seconds)
  let next = 0
  let suspect: number | undefined
  let total = 0
  while (Date.now() < end) {
    const child = start(next)
    let current: { run: number; folder: string; since: number } | undefined
    const result = await new Promise<'over' | 'hang' | 'crash'>((resolve) => {
      const timer = setInterval(() => {
        if (current && Date.now() - current.since > HANG_MS) resolve('hang')
        else if (Date.now() >= end) resolve('over')
      }, 100)
      child.on('message', (message: { run: number; folder?: string; outcome?: Outcome }) => {
        if (message.folder !== undefined) {
          current = { run: message.run, folder: message.folder, since: Date.now() }
          return
        }
        const { kind, finding, message: text } = message.outcome as Outcome
        current = undefined
        next = message.run + 1
        total++
        totals.set(kind, (totals.get(kind) ?? 0) + 1)
        if (text !== undefined) messages.add(text)
        if (finding !== undefined) found(message.run, finding)
      })
      child.once('exit', () => resolve('crash'))
      child.once('exit', () => clearInterval(timer))
    })
    if (result !== 'over' && current) {
      // A busy machine can hold up a run: only the second time in a row counts.
      if (result === 'hang' && suspect !== current.run) {
        suspect = current.run
      } else {
        keep(current.folder, current.run)
        found(
          current.run,
          result === 'hang'
            ? `took more than ${HANG_MS} ms`
            : `the process ended (${child.exitCode ?? child.signalCode})`,
        )
        next = current.run + 1
      }
    }
    await stop(child)
    if (result === 'crash' && !current) throw new Error('the child process could not start')
  }
  const counts = [...totals].sort((a, b) => b[1] - a[1]).map(([kind, count]) => `${kind} ${count}`)
  console.log(`${total} runs, seed ${seed}${options.native ? ', native' : ''}: ${counts.join(', ')}`)
  console.log(`${messages.size} different messages, ${findings} findings`)
  process.exitCode = findings > 0 ? 1 : 0
}

/** A killed child leaves its folder behind. */
async function stop(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const exited = new Promise((resolve) => child.once('exit', resolve))
  child.disconnect()
  const timer = setTimeout(() => child.kill('SIGKILL'), 1000)
  await exited
  clearTimeout(timer)
}

if (options.child !== undefined) {
  await childMain(Number(options.child))
} else if (options.run !== undefined) {
  const root = mkdtempSync(join(tmpdir(), 'implex-fuzz-'))
  const folder = join(options.out, `seed-${seed}-run-${options.run}`)
  makeInput(await goodImages(root), Number(options.run), folder)
  rmSync(root, { recursive: true })
  console.log(folder, await tryInput(folder))
} else {
  await parentMain()
}
