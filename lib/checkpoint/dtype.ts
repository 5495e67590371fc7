/**
 * Element types of stored weights and their conversions: exact to float32, round to nearest even from it.
 * Little-endian, as the safetensors format and every platform that Node runs on.
 */
import type { StoredDtype } from '../native/spec.js'

export function bytesPerElement(dtype: StoredDtype): number {
  return dtype === 'f32' ? 4 : 2
}

const scratch = new DataView(new ArrayBuffer(4))

function floatBits(value: number): number {
  scratch.setFloat32(0, value)
  return scratch.getUint32(0)
}

function bitsFloat(bits: number): number {
  scratch.setUint32(0, bits)
  return scratch.getFloat32(0)
}

/** NaN stays NaN; overflow becomes infinity. */
function toBf16(value: number): number {
  const bits = floatBits(value)
  if ((bits & 0x7fffffff) > 0x7f800000) return (bits >>> 16) | 0x40
  return ((bits + 0x7fff + ((bits >>> 16) & 1)) / 0x10000) & 0xffff
}

/** NaN stays NaN; overflow becomes infinity; subnormals are kept. */
function toF16(value: number): number {
  const bits = floatBits(value)
  const sign = (bits >>> 16) & 0x8000
  const magnitude = bits & 0x7fffffff
  if (magnitude > 0x7f800000) return sign | 0x7e00
  // 65520 is halfway between the largest half (65504) and the next power of two: from there on it rounds to infinity.
  if (magnitude >= 0x477ff000) return sign | 0x7c00
  if (magnitude < 0x38800000) {
    // Below 2^-14: a multiple of 2^-24. Multiplying is exact, and roundTiesToEven does the rest.
    return sign | roundTiesToEven(bitsFloat(magnitude) * 0x1000000)
  }
  const rounded = magnitude + 0xfff + ((magnitude >>> 13) & 1)
  return sign | ((rounded - 0x38000000) >>> 13)
}

function roundTiesToEven(value: number): number {
  const floor = Math.floor(value)
  const rest = value - floor
  return rest > 0.5 || (rest === 0.5 && floor % 2 === 1) ? floor + 1 : floor
}

function fromF16(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1
  const exponent = (bits >>> 10) & 0x1f
  const mantissa = bits & 0x3ff
  if (exponent === 0x1f) return mantissa ? Number.NaN : sign * Number.POSITIVE_INFINITY
  return exponent === 0 ? sign * mantissa * 2 ** -24 : sign * (mantissa + 0x400) * 2 ** (exponent - 25)
}

/** Little-endian bytes of `values[start, end)` in `dtype`. */
export function encode(values: Float32Array, start: number, end: number, dtype: StoredDtype): Buffer {
  if (dtype === 'f32') return Buffer.from(values.slice(start, end).buffer)
  const bytes = Buffer.allocUnsafe((end - start) * bytesPerElement(dtype))
  for (let i = start; i < end; i++) {
    const value = values[i] as number
    bytes.writeUInt16LE(dtype === 'bf16' ? toBf16(value) : toF16(value), (i - start) * 2)
  }
  return bytes
}

/** The inverse of `encode`. */
export function decode(bytes: Buffer, dtype: StoredDtype): Float32Array {
  const values = new Float32Array(bytes.length / bytesPerElement(dtype))
  for (let i = 0; i < values.length; i++) {
    if (dtype === 'f32') values[i] = bytes.readFloatLE(i * 4)
    else if (dtype === 'bf16') values[i] = bitsFloat((bytes.readUInt16LE(i * 2) << 16) >>> 0)
    else values[i] = fromF16(bytes.readUInt16LE(i * 2))
  }
  return values
}
