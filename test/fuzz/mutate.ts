/**
 * Structure-aware mutations of a checkpoint in memory: of JSON values, of the safetensors header as a table, of lengths, bytes and files.
 * Everything is drawn from one seeded Random, so a seed is an input.
 */
import type { Random } from '../fixtures/random.js'

/** A folder: file name -> content, or 'folder' for a folder in a file's place. */
export type Image = Map<string, Buffer | 'folder'>

const INDEX = 'model.safetensors.index.json'

const NUMBERS = [
  0,
  -0,
  -1,
  1,
  2,
  3,
  4,
  5,
  7,
  8,
  16,
  31,
  0.5,
  0.25,
  1e-7,
  -0.1,
  2 ** 16,
  2 ** 24,
  2 ** 31 - 1,
  2 ** 31,
  2 ** 32,
  2 ** 53 - 1,
  2 ** 53,
  1e18,
  1e308,
  -1e308,
  5e-324,
]
/** Put into the text as they are: what JSON.stringify cannot write. */
const RAW = [
  'NaN',
  'Infinity',
  '1e999',
  '-1e999',
  '9007199254740993',
  '0x10',
  '01',
  '"\\ud800"',
  '"\\u0000"',
  '',
  '{',
  ',',
  '"',
]
const STRINGS = [
  '',
  '32',
  '__proto__',
  'constructor',
  'toString',
  'F32',
  'BF16',
  'F4',
  'I64',
  'llama',
  'gpt_neox',
  'llama3',
  'yarn',
  '../x',
  '\n',
  'é',
  '\u0000',
]
const CONFIG_KEYS = [
  'model_type',
  'architectures',
  'vocab_size',
  'hidden_size',
  'intermediate_size',
  'num_hidden_layers',
  'num_attention_heads',
  'head_dim',
  'num_key_value_heads',
  'max_position_embeddings',
  'hidden_act',
  'rms_norm_eps',
  'layer_norm_eps',
  'tie_word_embeddings',
  'attention_bias',
  'mlp_bias',
  'use_sliding_window',
  'sliding_window',
  'layer_types',
  'quantization_config',
  'rope_theta',
  'rope_scaling',
  'rope_parameters',
  'rotary_pct',
  'rotary_emb_base',
  'partial_rotary_factor',
  'original_max_position_embeddings',
  'use_parallel_residual',
  'eos_token_id',
  'bos_token_id',
  'pad_token_id',
  'torch_dtype',
  'num_labels',
]
const ROPES = [
  { rope_type: 'default', rope_theta: 500 },
  { type: 'linear', factor: 2 },
  { rope_type: 'llama3', factor: 8, low_freq_factor: 1, high_freq_factor: 4, original_max_position_embeddings: 64 },
  { rope_type: 'yarn', factor: 4 },
  { partial_rotary_factor: 0.5, rope_theta: 1e4 },
]
const DTYPES = ['F32', 'F16', 'BF16', 'F64', 'I32', 'I8', 'U8', 'BOOL', 'F8_E4M3', 'F4', 'F6_E2M3', 'C64']
const LENGTHS = [
  0n,
  1n,
  2n,
  7n,
  2n ** 31n - 1n,
  2n ** 31n,
  2n ** 32n,
  2n ** 53n,
  2n ** 63n - 1n,
  2n ** 63n,
  2n ** 64n - 1n,
  100_000_000n,
  100_000_001n,
]

const raw = (text: string) => `@raw:${Buffer.from(text).toString('hex')}@`

function stringify(value: unknown): string {
  return (JSON.stringify(value) ?? '').replace(/"@raw:([0-9a-f]*)@"/g, (_, hex: string) =>
    Buffer.from(hex, 'hex').toString(),
  )
}

function anyValue(random: Random): unknown {
  switch (random.below(9)) {
    case 0:
      return null
    case 1:
      return random.pick([true, false])
    case 2:
      return random.pick(STRINGS)
    case 3:
      return raw(random.pick(RAW))
    case 4:
      return random.pick([[], {}, [[]], [1, 2], { a: 1 }, 'x'.repeat(5000), ['full_attention']])
    case 5: {
      const depth = random.pick([10, 2000, 60_000])
      return raw(random.pick(['[', '{"a":']).repeat(depth))
    }
    case 6: {
      const depth = random.pick([10, 2000, 60_000])
      return raw('['.repeat(depth) + ']'.repeat(depth))
    }
    default:
      return random.pick(NUMBERS)
  }
}

function tweak(random: Random, value: unknown): unknown {
  if (typeof value !== 'number' || random.below(3) === 0) return anyValue(random)
  return random.pick([
    value + 1,
    value - 1,
    value * 2,
    value / 2,
    -value,
    value + 4,
    value - 4,
    value + 0.5,
    value * 1e9,
    value + 2 ** 32,
  ])
}

type Node = { parent: Record<string, unknown> | unknown[]; key: string | number }

/** Everything down to some depth: an earlier mutation may have nested a value deeper than the stack. */
function nodes(value: unknown, found: Node[] = [], depth = 20): Node[] {
  if (typeof value !== 'object' || value === null || depth === 0) return found
  for (const key of Object.keys(value)) {
    const parent = value as Record<string, unknown>
    found.push({ parent, key })
    nodes(parent[key], found, depth - 1)
  }
  return found
}

const read = ({ parent, key }: Node) => Reflect.get(parent, key) as unknown
// Not an assignment: "__proto__" must become an own property.
const write = ({ parent, key }: Node, value: unknown) =>
  Object.defineProperty(parent, key, { value, enumerable: true, configurable: true, writable: true })

function mutateTree(random: Random, tree: object): void {
  const all = nodes(tree)
  if (all.length === 0) return
  const node = random.pick(all)
  switch (random.below(6)) {
    case 0:
      Reflect.deleteProperty(node.parent, node.key)
      break
    case 1: {
      const other = random.pick(all)
      const value = read(other)
      write(other, read(node))
      // A value put into itself could not be written as JSON.
      if (!nodes(value).some(({ parent }) => parent === node.parent)) write(node, value)
      break
    }
    case 2:
      write({ parent: node.parent, key: random.pick([...STRINGS, ...CONFIG_KEYS]) }, read(node))
      break
    default:
      write(node, tweak(random, read(node)))
  }
}

function parse(content: Buffer | 'folder' | undefined): Record<string, unknown> | undefined {
  try {
    const value: unknown = content instanceof Buffer ? JSON.parse(content.toString()) : undefined
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : undefined
  } catch {
    return undefined
  }
}

function safeStringify(value: unknown): string | undefined {
  try {
    return stringify(value)
  } catch {
    return undefined // a cycle, or nesting too deep for JSON.stringify
  }
}

function mutateJsonFile(random: Random, image: Image, name: string): void {
  const value = parse(image.get(name))
  if (!value) {
    mutateBytes(random, image, name)
    return
  }
  if (name === 'config.json' && random.below(2) === 0) {
    const key = random.pick(CONFIG_KEYS)
    const rope = key.startsWith('rope_') && key !== 'rope_theta' && random.below(3) > 0
    write({ parent: value, key }, rope ? structuredClone(random.pick(ROPES)) : tweak(random, value[key]))
  } else {
    mutateTree(random, value)
  }
  const text = safeStringify(value)
  if (text !== undefined) image.set(name, Buffer.from(text))
}

function mutateBytes(random: Random, image: Image, name: string): void {
  const content = image.get(name)
  if (!(content instanceof Buffer)) return
  image.set(name, mutateBuffer(random, content))
}

function mutateBuffer(random: Random, content: Buffer): Buffer {
  const at = random.below(content.length + 1)
  const to = Math.min(content.length, at + random.pick([1, 1, 2, 8, 100, 1e6]))
  const [before, part, after] = [content.subarray(0, at), content.subarray(at, to), content.subarray(to)]
  switch (random.below(5)) {
    case 0:
      return before
    case 1:
      return Buffer.concat([before, after])
    case 2:
      return Buffer.concat([before, part, part, after])
    case 3:
      return Buffer.concat([
        before,
        Buffer.from(random.pick(['\0', '"', '{', '}', '[', ',', '\\', '\ufeff', ' ', '9', 'e', '-'])),
        part,
        after,
      ])
    default: {
      const copy = Buffer.from(content)
      if (at < copy.length)
        copy[at] = random.below(2) ? random.below(256) : (copy[at] as number) ^ (1 << random.below(8))
      return copy
    }
  }
}

interface Parts {
  length: bigint
  header: Buffer
  data: Buffer
}

function split(content: Buffer): Parts {
  const length = content.length >= 8 ? content.readBigUInt64LE() : 0n
  const end = 8 + Number(length < BigInt(content.length) ? length : 0n)
  return { length, header: content.subarray(8, end), data: content.subarray(end) }
}

function join({ length, header, data }: Parts): Buffer {
  const start = Buffer.alloc(8)
  start.writeBigUInt64LE(BigInt.asUintN(64, length))
  return Buffer.concat([start, header, data])
}

const isNumbers = (value: unknown) => Array.isArray(value) && value.every((item) => typeof item === 'number')

type Entry = { dtype: string; shape: number[]; data_offsets: [number, number] }

function mutateWeights(random: Random, image: Image, name: string): void {
  const content = image.get(name)
  if (!(content instanceof Buffer)) return
  const parts = split(content)
  switch (random.below(8)) {
    case 0:
      parts.length = random.pick([...LENGTHS, parts.length + 1n, parts.length + 7n, BigInt(content.length)])
      break
    case 1:
      parts.header = mutateBuffer(random, parts.header)
      if (random.below(2)) parts.length = BigInt(parts.header.length)
      break
    case 2:
      parts.data = random.below(2)
        ? Buffer.concat([parts.data, Buffer.alloc(random.pick([1, 4, 4096]))])
        : mutateBuffer(random, parts.data)
      break
    case 3:
      poison(random, parts)
      break
    default: {
      const table = parse(parts.header)
      if (!table) break
      mutateTable(random, table, parts)
      const text = safeStringify(table)
      if (text === undefined) break
      parts.header = Buffer.from(text)
      parts.length = BigInt(parts.header.length)
    }
  }
  image.set(name, join(parts))
}

/** Values that a model should not have: NaN, infinities, huge and tiny numbers. */
function poison(random: Random, parts: Parts): void {
  if (parts.data.length < 4) return
  const data = Buffer.from(parts.data)
  const at = random.below(data.length / 4) * 4
  data.writeFloatLE(random.pick([Number.NaN, Number.POSITIVE_INFINITY, -3e38, 1e30, 1e-40, 1e5]), at)
  parts.data = data
}

/** Changes that keep a file's promises to itself are as likely as lies, so that the checks behind the reader are reached as well. */
function mutateTable(random: Random, table: Record<string, unknown>, parts: Parts): void {
  const names = Object.keys(table).filter((name) => name !== '__metadata__')
  if (names.length === 0) return
  const name = random.pick(names)
  const entry = table[name] as Entry
  const sound = isNumbers(entry?.shape) && isNumbers(entry?.data_offsets) && typeof entry.dtype === 'string'
  if (!sound) {
    mutateTree(random, table)
    return
  }
  const other = table[random.pick(names)] as Entry
  switch (random.below(12)) {
    case 0: // same bytes, other meaning
      entry.shape = random.pick([
        [...entry.shape].reverse(),
        [...entry.shape, 1],
        [1, ...entry.shape],
        [entry.shape.reduce((a, b) => a * b, 1)],
      ])
      break
    case 1:
      entry.dtype = random.pick(['F16', 'BF16', 'I16'])
      entry.shape = [...entry.shape.slice(0, -1), (entry.shape.at(-1) ?? 1) * 2]
      break
    case 2:
      if (Array.isArray(other?.data_offsets))
        [entry.data_offsets, other.data_offsets] = [other.data_offsets, entry.data_offsets]
      break
    case 3:
      removeTensor(table, name, parts)
      break
    case 4: {
      const [begin, end] = [parts.data.length, parts.data.length + 4 * 8]
      const added = random.pick([
        'score.weight',
        'lm_head.weight',
        'extra',
        '__proto__',
        `${name}_scale`,
        name.replace('.0.', '.7.'),
        '',
      ])
      write(
        { parent: table, key: added },
        { dtype: 'F32', shape: [random.pick([1, 2]), 8].slice(random.below(2)), data_offsets: [begin, end] },
      )
      parts.data = Buffer.concat([parts.data, Buffer.alloc(32)])
      break
    }
    case 5: {
      const renamed = random.pick([
        ...STRINGS,
        random.pick(names),
        name.replace(/^[^.]*\./, ''),
        name.replace(/\d/, '9'),
      ])
      Reflect.deleteProperty(table, name)
      write({ parent: table, key: renamed }, entry)
      break
    }
    case 6:
      entry.dtype = random.pick(DTYPES)
      break
    case 7:
      entry.data_offsets = entry.data_offsets.map((offset) => tweak(random, offset)) as [number, number]
      break
    case 8:
      entry.shape = entry.shape.map((size) => tweak(random, size)) as number[]
      break
    case 9:
      table.__metadata__ = random.pick([{ format: 'pt' }, anyValue(random), { a: anyValue(random) }])
      break
    default:
      mutateTree(random, table)
  }
}

/** Out of the table and out of the data. */
function removeTensor(table: Record<string, unknown>, name: string, parts: Parts): void {
  const [begin, end] = (table[name] as Entry).data_offsets
  const size = end - begin
  if (!(size >= 0 && end <= parts.data.length)) return
  delete table[name]
  parts.data = Buffer.concat([parts.data.subarray(0, begin), parts.data.subarray(end)])
  for (const entry of Object.values(table) as Entry[]) {
    if (!isNumbers(entry?.data_offsets)) continue
    entry.data_offsets = entry.data_offsets.map((offset) => (offset >= end ? offset - size : offset)) as [
      number,
      number,
    ]
  }
}

function mutateFiles(random: Random, image: Image): void {
  const name = random.pick([...image.keys()])
  const other = random.pick([...image.keys()])
  const content = image.get(name) as Buffer | 'folder'
  switch (random.below(5)) {
    case 0:
      image.delete(name)
      break
    case 1:
      image.set(name, image.get(other) as Buffer | 'folder')
      break
    case 2:
      image.set(
        name,
        random.pick([
          Buffer.alloc(0),
          'folder',
          Buffer.from('[]'),
          Buffer.alloc(9),
          Buffer.from('version https://git-lfs'),
        ]),
      )
      break
    case 3:
      image.delete(name)
      image.set(
        random.pick(['model.safetensors', 'model.bin', 'x.gguf', 'adapter_model.safetensors', INDEX, 'a.safetensors']),
        content,
      )
      break
    default:
      image.set('model.safetensors', content)
  }
}

/** Applies one to five mutations in place. */
export function mutate(random: Random, image: Image): void {
  for (let left = 1 + random.below(3) * random.below(3); left > 0 && image.size > 0; left--) {
    const weights = [...image.keys()].filter((name) => name.endsWith('.safetensors'))
    const kind = random.below(20)
    if (kind < 7) mutateJsonFile(random, image, 'config.json')
    else if (kind < 9 && image.has(INDEX)) mutateJsonFile(random, image, INDEX)
    else if (kind < 17 && weights.length > 0) mutateWeights(random, image, random.pick(weights))
    else if (kind < 19) mutateBytes(random, image, random.pick([...image.keys()]))
    else mutateFiles(random, image)
  }
}
