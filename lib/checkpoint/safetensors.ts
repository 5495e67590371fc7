/**
 * The header of a safetensors file: which tensors it has and where. Only the header is read.
 *
 * A file is: header length (8 bytes, little-endian), header (JSON: name -> dtype, shape, data_offsets), data. The tensors' ranges must
 * cover the data exactly, without overlaps and holes. Nothing in a header is believed before it is checked against the file.
 */
import { ImplexError } from '../core/errors.js'
import { describe, isPlainObject } from '../core/arguments.js'
import { parseJsonObject, printable, quoted, readAt, withRegularFile } from '../core/files.js'

export interface TensorEntry {
  name: string
  file: string
  /** Absolute byte position in the file. */
  offset: number
  bytes: number
  /** As spelled in the file: 'F32', 'BF16', 'I8', … */
  dtype: string
  shape: number[]
}

const MAX_HEADER_BYTES = 100_000_000

/** Bits per element of every type that the format knows. */
const DTYPE_BITS = new Map([
  ['BOOL', 8],
  ['F4', 4],
  ['F6_E2M3', 6],
  ['F6_E3M2', 6],
  ['U8', 8],
  ['I8', 8],
  ['F8_E5M2', 8],
  ['F8_E4M3', 8],
  ['F8_E8M0', 8],
  ['F8_E4M3FNUZ', 8],
  ['F8_E5M2FNUZ', 8],
  ['I16', 16],
  ['U16', 16],
  ['F16', 16],
  ['BF16', 16],
  ['I32', 32],
  ['U32', 32],
  ['F32', 32],
  ['C64', 64],
  ['F64', 64],
  ['I64', 64],
  ['U64', 64],
])

/**
 * The tensors of one safetensors file by name.
 * @throws ImplexError ERR_SAFETENSORS_INVALID naming the file and the tensor, ERR_CHECKPOINT_NOT_FOUND, ERR_IO
 */
export async function readHeader(file: string): Promise<Map<string, TensorEntry>> {
  const invalid = (message: string) => new ImplexError('ERR_SAFETENSORS_INVALID', `${file}: ${message}`, { path: file })
  const { header, dataStart, dataBytes } = await withRegularFile(file, async (handle, size) => {
    const start = await readAt(handle, 0, 8)
    if (start.length < 8)
      throw invalid(`only ${size} bytes long, too short for a safetensors file; copy or download it again`)
    const length = start.readBigUInt64LE()
    if (start.toString('latin1') === 'version ')
      throw invalid('is a Git LFS pointer, not the weights; run `git lfs pull`')
    if (length > MAX_HEADER_BYTES) {
      throw invalid(
        `the header claims ${length} bytes (at most ${MAX_HEADER_BYTES}); not a safetensors file, or damaged`,
      )
    }
    if (length > size - 8) {
      throw invalid(
        `the header claims ${length} bytes, but the file has only ${size - 8} after its length; truncated: copy it again`,
      )
    }
    const bytes = await readAt(handle, 8, Number(length))
    if (bytes[0] !== 0x7b) throw invalid('the header does not begin with "{"; not a safetensors file, or damaged')
    return { header: bytes, dataStart: 8 + Number(length), dataBytes: size - 8 - Number(length) }
  })

  const tensors = new Map<string, TensorEntry>()
  const parsed = parseJsonObject(header, file, 'the header', 'ERR_SAFETENSORS_INVALID')
  const twice = repeatedKey(header.toString('utf8'))
  if (twice !== undefined) throw invalid(`the header has ${quoted(twice)} twice`)
  for (const [name, value] of Object.entries(parsed)) {
    if (name === '__metadata__') checkMetadata(value, invalid)
    else tensors.set(name, tensorEntry(name, value, file, dataStart, dataBytes, invalid))
  }
  checkCoverage([...tensors.values()], dataStart, dataBytes, invalid)
  return tensors
}

type Invalid = (message: string) => ImplexError

function checkMetadata(value: unknown, invalid: Invalid): void {
  if (!isPlainObject(value)) throw invalid(`"__metadata__" must be an object of strings; got ${describe(value)}`)
  for (const [key, item] of Object.entries(value)) {
    if (typeof item !== 'string')
      throw invalid(`"__metadata__" entry ${quoted(key)} must be a string; got ${describe(item)}`)
  }
}

const isSize = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0

function tensorEntry(
  name: string,
  value: unknown,
  file: string,
  dataStart: number,
  dataBytes: number,
  invalid: Invalid,
): TensorEntry {
  const bad = (message: string) => invalid(`tensor ${quoted(name)}: ${message}`)
  if (!isPlainObject(value)) throw bad(`its entry must be an object; got ${describe(value)}`)
  const { dtype, shape, data_offsets: offsets } = value
  const bits = typeof dtype === 'string' ? DTYPE_BITS.get(dtype) : undefined
  if (typeof dtype !== 'string' || bits === undefined) {
    throw bad(`unknown dtype ${printable(describe(dtype))}; the format has ${[...DTYPE_BITS.keys()].join(', ')}`)
  }
  if (!Array.isArray(shape) || !shape.every(isSize)) throw bad(`its shape must be a list of sizes; got ${shown(shape)}`)
  if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(isSize)) {
    throw bad(`its data_offsets must be two byte positions; got ${shown(offsets)}`)
  }
  const [begin, end] = offsets as [number, number]
  if (begin > end) throw bad(`its data_offsets run backwards: ${shown(offsets)}`)
  const elements = shape.includes(0) ? 0 : shape.reduce((product, size) => product * size, 1)
  const totalBits = elements * bits
  if (!Number.isSafeInteger(totalBits) || totalBits % 8 !== 0) {
    throw bad(`its shape ${shown(shape)} of ${dtype} is not a possible size`)
  }
  if (end - begin !== totalBits / 8) {
    throw bad(
      `${dtype} of shape ${shown(shape)} takes ${totalBits / 8} bytes, but its data_offsets span ${end - begin}`,
    )
  }
  if (end > dataBytes) {
    throw bad(
      `it ends at byte ${end} of the data, but the file has only ${dataBytes}; truncated: copy or download it again`,
    )
  }
  return { name, file, offset: dataStart + begin, bytes: end - begin, dtype, shape: shape as number[] }
}

// Not JSON.stringify, which overflows the stack on a deeply nested value.
function shown(value: unknown): string {
  if (!Array.isArray(value)) return describe(value)
  const items = value.slice(0, 8).map(describe)
  return printable(`[${items.join(', ')}${value.length > 8 ? ', ...' : ''}]`)
}

function checkCoverage(entries: TensorEntry[], dataStart: number, dataBytes: number, invalid: Invalid): void {
  const ordered = entries.sort((a, b) => a.offset - b.offset || a.bytes - b.bytes)
  let covered = dataStart
  let previous = 'the header'
  for (const entry of ordered) {
    const label = `tensor ${quoted(entry.name)}`
    if (entry.offset < covered) throw invalid(`${label} overlaps ${previous}`)
    if (entry.offset > covered) throw invalid(`${entry.offset - covered} bytes before ${label} belong to no tensor`)
    covered = entry.offset + entry.bytes
    previous = label
  }
  const rest = dataStart + dataBytes - covered
  if (rest > 0) throw invalid(`the last ${rest} bytes, after ${previous}, belong to no tensor`)
}

/**
 * A key that a JSON object has twice at its top level, of which JSON.parse silently keeps the last. `text` must be valid JSON.
 */
function repeatedKey(text: string): string | undefined {
  const seen = new Set<string>()
  let depth = 0
  let expectKey = false
  for (let i = 0; i < text.length; i++) {
    const character = text[i]
    if (character === '"') {
      const begin = i
      for (i++; text[i] !== '"'; i++) if (text[i] === '\\') i++
      if (depth !== 1 || !expectKey) continue
      const key = JSON.parse(text.slice(begin, i + 1)) as string
      if (seen.has(key)) return key
      seen.add(key)
      expectKey = false
    } else if (character === '{' || character === '[') {
      depth++
      expectKey = depth === 1
    } else if (character === '}' || character === ']') {
      depth--
    } else if (character === ',' && depth === 1) {
      expectKey = true
    }
  }
  return undefined
}
