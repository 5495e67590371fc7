/**
 * One build under measurement: answers requests, one JSON line each, by turning rows into ids with the code of the `dist` folder that it
 * was started for. Only calls that older builds have too are used.
 *
 *   node side.js DIST
 */
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import path from 'node:path'
import { performance } from 'node:perf_hooks'
import { createInterface } from 'node:readline'
import { pathToFileURL } from 'node:url'
import type { EncodedRow, EncodeSettings, PreparedRow } from '../../lib/data/encode.js'
import type { EncodePool } from '../../lib/data/encode-pool.js'
import type { readJsonl } from '../../lib/data/jsonl.js'
import type { RowEncoder } from '../../lib/text/text-encoder.js'
import type { Encoded, Question, RowDigest, Times } from './questions.js'

const [, , dist] = process.argv
if (dist === undefined) throw new Error('usage: side.js DIST')
const from = <T>(file: string) => import(pathToFileURL(path.resolve(dist, 'lib', file)).href) as Promise<T>
const { encodeRow } = await from<{
  encodeRow(encoder: RowEncoder, row: PreparedRow, settings: EncodeSettings): EncodedRow
}>('data/encode.js')
const encoders = await from<{ RowEncoder: typeof RowEncoder }>('text/text-encoder.js')
const pools = await from<{ EncodePool: typeof EncodePool }>('data/encode-pool.js')
const sources = await from<{ readJsonl: typeof readJsonl }>('data/jsonl.js')

/** The encoder of `warm` questions, kept with the pieces of words that it has seen. */
const kept = new Map<string, RowEncoder>()

async function encoderOf({ stage, model, template }: Question): Promise<RowEncoder> {
  const key = `${template} ${model}`
  const known = kept.get(key)
  if (stage === 'warm' && known !== undefined) return known
  const encoder = await encoders.RowEncoder.load({ path: model, template })
  if (stage === 'warm') kept.set(key, encoder)
  return encoder
}

function settingsOf({ kind, border }: Question): EncodeSettings {
  return { kind, border, onLong: 'skip', contextLength: 1e6, vocabularySize: 1e6 }
}

function rowsOf({ stage, data }: Question): PreparedRow[] {
  const lines = readFileSync(data, 'utf8').split('\n')
  return lines.flatMap((text, i): PreparedRow[] => {
    if (text.trim() === '') return []
    const place = { index: i, line: i + 1 }
    if (stage !== 'groups') return [{ ...place, text }]
    const { prompt, chosen, rejected } = JSON.parse(text) as Record<string, string>
    if ([prompt, chosen, rejected].some((one) => typeof one !== 'string')) {
      throw new Error(`${data}, line ${i + 1}: the stage "groups" takes pairs of plain texts`)
    }
    return [{ ...place, group: { ...place, shape: 'pair', prompt: prompt!, responses: [chosen!, rejected!] } }]
  })
}

/** Starts a clock without garbage of what was before. Seconds on the wall, and of the processors that all threads here have used. */
function clock(): () => Times {
  globalThis.gc?.()
  const [start, used] = [performance.now(), process.cpuUsage()]
  return () => {
    const { user, system } = process.cpuUsage(used)
    return { seconds: (performance.now() - start) / 1000, cpuSeconds: (user + system) / 1e6 }
  }
}

async function encoded(question: Question) {
  const settings = settingsOf(question)
  if (question.stage === 'pool') {
    const pool = await pools.EncodePool.start({ path: question.model, template: question.template })
    const rows: EncodedRow[] = []
    const time = clock()
    for await (const chunk of pool.encode(sources.readJsonl(question.data).chunks(), settings)) rows.push(...chunk)
    const times = time()
    pool.close()
    return { rows, times }
  }
  const encoder = await encoderOf(question)
  const given = rowsOf(question)
  const time = clock()
  const rows = given.map((row) => encodeRow(encoder, row, settings))
  return { rows, times: time() }
}

function digestOf({ prompt, promptLengths, responses, error }: EncodedRow): RowDigest {
  if (error !== undefined) return { ids: '', borders: '', error: error.code }
  const hash = createHash('sha256')
  const borders = responses.map((ids, k) => {
    const before = prompt.subarray(0, promptLengths?.[k])
    hash.update(`${[...before, ...ids].join(',')};`)
    return before.length
  })
  return { ids: hash.digest('hex'), borders: borders.join(',') }
}

function summary(rows: readonly EncodedRow[], times: Times, each = false): Encoded {
  const digests = rows.map(digestOf)
  const tokens = rows.reduce(
    (sum, { prompt, promptLengths, responses }) =>
      sum + responses.reduce((all, ids, k) => all + (promptLengths?.[k] ?? prompt.length) + ids.length, 0),
    0,
  )
  return {
    ...times,
    rows: rows.length,
    tokens,
    errors: rows.filter(({ error }) => error !== undefined).length,
    digest: createHash('sha256').update(JSON.stringify(digests)).digest('hex'),
    ...(each ? { each: digests } : {}),
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  let answer: Encoded | { error: string }
  try {
    const question = JSON.parse(line) as Question
    const { rows, times } = await encoded(question)
    answer = summary(rows, times, question.each)
  } catch (error) {
    answer = { error: error instanceof Error ? error.message : String(error) }
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`)
}
