/** The public operations against float64 written out here, what they refuse, and the timer of `implex bench`. */
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { benchmark, benchmarkInTurn, kernels } from '../lib/native/kernels.js'
import type { BenchmarkShape } from '../lib/native/kernel-calls.js'
import { seededRandom } from './fixtures/random.js'
import { failure, fails, unsafe } from './support/engine.js'

const random = seededRandom(3)
const values = (count: number, scale = 1) => Float32Array.from({ length: count }, () => scale * random.normal())

const bf16 = (x: number): number => {
  const bits = new Uint32Array(Float32Array.of(x).buffer)
  bits[0] = (bits[0]! + 0x7fff + ((bits[0]! >>> 16) & 1)) & 0xffff0000
  return new Float32Array(bits.buffer)[0]!
}

const dot = (a: Float32Array, i: number, b: Float32Array, j: number, width: number, round = (x: number) => x) => {
  let sum = 0
  for (let k = 0; k < width; k++) sum += round(a[i * width + k]!) * round(b[j * width + k]!)
  return sum
}

function close(got: Float32Array, want: number[], limit: number): void {
  assert.is(got.length, want.length)
  const norm = (list: number[]) => Math.sqrt(list.reduce((sum, x) => sum + x * x, 0))
  const error = norm(want.map((x, i) => x - got[i]!)) / norm(want)
  assert.ok(error < limit, `relative error ${error}`)
}

test('gemm', async () => {
  const [m, n, k] = [7, 70, 33]
  const [a, b, bias] = [values(m * k), values(n * k), values(n)]
  for (const dtype of ['f32', 'bf16'] as const) {
    const round = dtype === 'bf16' ? bf16 : (x: number) => x
    const want = Array.from(
      { length: m * n },
      (_, at) => dot(a, Math.floor(at / n), b, at % n, k, round) + bias[at % n]!,
    )
    close(await kernels.gemm({ a, b, k, bias, dtype }), want, 1e-5)
  }
  assert.is((await kernels.gemm({ a: new Float32Array(0), b, k })).length, 0)
})

test('linearLogprob', async () => {
  const [n, v, d] = [9, 300, 40]
  const [hidden, weight] = [values(n * d), values(v * d, 0.3)]
  const targets = Int32Array.from({ length: n }, () => random.below(v))
  const want = Array.from(targets, (target, i) => {
    const logits = Array.from({ length: v }, (_, j) => dot(hidden, i, weight, j, d))
    const top = Math.max(...logits)
    return logits[target]! - top - Math.log(logits.reduce((sum, z) => sum + Math.exp(z - top), 0))
  })
  close(await kernels.linearLogprob({ hidden, weight, targets }), want, 1e-5)
})

test('linearReward: rows, spans, norms', async () => {
  const [n, d] = [6, 24]
  const [hidden, head, gamma, beta] = [values(n * d), values(d), values(d), values(d)]
  const rows = Array.from({ length: n }, (_, i) => dot(hidden, i, head, 0, d))
  close(await kernels.linearReward({ hidden, head }), rows, 1e-5)
  const spans = [
    [1, 3],
    [5, 1],
  ] as const
  const mean = (list: number[]) => list.reduce((sum, x) => sum + x, 0) / list.length
  close(await kernels.linearReward({ hidden, head, spans }), [mean(rows.slice(1, 4)), rows[5]!], 1e-5)

  for (const kind of ['rms', 'layer'] as const) {
    const norm = { kind, gamma, eps: 1e-5, ...(kind === 'layer' ? { beta } : {}) }
    const want = Array.from({ length: n }, (_, i) => {
      const row = [...hidden.subarray(i * d, (i + 1) * d)]
      const center = kind === 'layer' ? mean(row) : 0
      const scale = 1 / Math.sqrt(mean(row.map((x) => (x - center) ** 2)) + 1e-5)
      return row.reduce((sum, x, k) => sum + ((x - center) * scale * gamma[k]! + (norm.beta?.[k] ?? 0)) * head[k]!, 0)
    })
    close(await kernels.linearReward({ hidden, head, norm }), want, 1e-5)
  }
})

test('arguments', async () => {
  const [a, b] = [values(12), values(8)]
  await fails(() => kernels.gemm(unsafe(undefined)), 'TypeError', /"input" must be an object/)
  await fails(() => kernels.gemm({ a, b, k: 0 }), 'RangeError', /"input\.k"/)
  await fails(() => kernels.gemm({ a, b, k: 5 }), 'RangeError', /"input\.a" must be rows of 5/)
  await fails(() => kernels.gemm({ a, b: new Float32Array(0), k: 4 }), 'RangeError', /"input\.b"/)
  await fails(() => kernels.gemm({ a, b, k: 4, bias: a }), 'RangeError', /"input\.bias" must be of 2/)
  await fails(() => kernels.gemm(unsafe({ a: [1], b, k: 1 })), 'TypeError', /"input\.a" must be a Float32Array/)
  await fails(() => kernels.gemm(unsafe({ a, b, k: 4, dtype: 'f16' })), 'RangeError', /"input\.dtype"/)
  await fails(() => kernels.gemm(unsafe({ a, b, k: 4, device: 'tpu' })), 'RangeError', /"input\.device"/)
  await fails(() => kernels.gemm(unsafe({ a, b, k: 4, signal: 1 })), 'TypeError', /"input\.signal"/)
  const logprob =
    (targets: number[], hidden = a) =>
    () =>
      kernels.linearLogprob({ hidden, weight: b, targets: Int32Array.from(targets) })
  await fails(logprob([]), 'RangeError', /"input\.targets"/)
  await fails(logprob([0, 1, 2]), 'RangeError', /"input\.targets\[2\]" must be a row of the weight, below 2; got 2/)
  await fails(logprob([-1, 0, 0]), 'RangeError', /targets\[0\]/)
  await fails(logprob([0, 0, 0, 0, 0]), 'RangeError', /"input\.hidden"/)
  await fails(logprob([0], new Float32Array(0)), 'RangeError', /"input\.hidden"/)
  const reward = (more: object) => () => kernels.linearReward(unsafe({ hidden: a, head: values(4), ...more }))
  await fails(reward({ head: new Float32Array(0) }), 'RangeError', /"input\.head"/)
  await fails(reward({ hidden: values(10) }), 'RangeError', /"input\.hidden" must be rows of 4/)
  await fails(reward({ spans: [[0, 4]] }), 'RangeError', /"input\.spans\[0\]\[1\]"/)
  await fails(reward({ spans: [[3, 1]] }), 'RangeError', /"input\.spans\[0\]\[0\]"/)
  await fails(reward({ spans: [1] }), 'TypeError', /"input\.spans\[0\]"/)
  await fails(reward({ spans: [] }), 'RangeError', /"input\.spans"/)
  await fails(reward({ norm: { kind: 'rms', gamma: a, eps: 1e-5 } }), 'RangeError', /"input\.norm\.gamma" must be of 4/)
  await fails(reward({ norm: { kind: 'batch', gamma: values(4), eps: 1e-5 } }), 'RangeError', /"input\.norm\.kind"/)
})

test('inputs may be reused at once, views are read at their offset, a signal stops', async () => {
  const wide = values(20)
  const a = wide.subarray(3, 15)
  const b = values(8)
  const want = await kernels.gemm({ a: a.slice(), b, k: 4 })
  const got = kernels.gemm({ a, b, k: 4 })
  wide.fill(0)
  assert.equal(await got, want)
  const error = await failure(() => kernels.gemm({ a, b, k: 4, signal: AbortSignal.abort() }))
  assert.is(error.code, 'ERR_ABORTED')
})

test('benchmark: every operation is timed and right', async () => {
  const timing = { samples: 2, warmupSeconds: 0, sampleSeconds: 1e-4, seed: 1 }
  const attention = { heads: 4, kvHeads: 2, headDim: 16, groups: 2, prompt: 5, responses: 2, response: 70 }
  const product = { rows: 33, columns: 130, depth: 48 }
  const norm = { rows: 5, columns: 96 } as const
  const shapes: BenchmarkShape[] = [
    { op: 'peak' },
    { op: 'copy', rows: 2 ** 20 },
    { op: 'gemm', ...product },
    { op: 'linear_logprob', ...product },
    { op: 'linear_logprob_backward', ...product },
    { op: 'linear_logprob_both', ...product },
    { op: 'head_products', ...product },
    { op: 'attention', ...attention },
    { op: 'attention_backward', ...attention },
    { op: 'norm', ...norm, norm: 'rms' },
    { op: 'norm', ...norm, norm: 'layer' },
    { op: 'norm_backward', ...norm, norm: 'rms' },
    { op: 'norm_backward', ...norm, norm: 'layer' },
  ]
  for (const dtype of ['f32', 'bf16'] as const) {
    for (const shape of shapes) {
      const { seconds, repeats, error, flops, bytes } = await benchmark(shape, { dtype, ...timing })
      assert.is(seconds.length, 2)
      assert.ok(seconds.every((s) => s > 0) && repeats >= 1 && flops + bytes > 0, shape.op)
      assert.ok(error <= (dtype === 'f32' ? 1e-5 : 1e-2), `${dtype} ${shape.op}: ${error}`)
    }
  }
})

test('benchmark: several in turn, on operands that no cache holds', async () => {
  const timing = { samples: 3, warmupSeconds: 0, sampleSeconds: 1e-4, coldBytes: 1e9, seed: 1 }
  const product = { rows: 33, columns: 130, depth: 48 }
  const ops = ['gemm', 'linear_logprob', 'head_products', 'linear_logprob_both'] as const
  const results = await benchmarkInTurn(
    ops.map((op) => ({ op, ...product })),
    { dtype: 'bf16', ...timing },
  )
  assert.is(results.length, ops.length)
  for (const { seconds, error } of results) assert.ok(seconds.length === 3 && error <= 1e-2, String(error))
  await fails(() => benchmarkInTurn([], timing), 'RangeError', /"shapes"/)
})

test('benchmark: arguments', async () => {
  const timing = { samples: 1, warmupSeconds: 0, sampleSeconds: 0, seed: 1 }
  const run =
    (shape: object, more: object = {}) =>
    () =>
      benchmark(unsafe(shape), { ...timing, ...more })
  await fails(run({ op: 'sort' }), 'RangeError', /"shapes\[0\]\.op"/)
  await fails(run({ op: 'gemm', rows: 1, columns: 1 }), 'TypeError', /"shapes\[0\]\.depth"/)
  await fails(run({ op: 'gemm', rows: 0, columns: 1, depth: 1 }), 'RangeError', /"shapes\[0\]\.rows"/)
  await fails(run({ op: 'norm', rows: 1, columns: 1, norm: 'batch' }), 'RangeError', /"shapes\[0\]\.norm"/)
  const attention = {
    op: 'attention',
    heads: 3,
    kvHeads: 2,
    headDim: 8,
    groups: 1,
    prompt: 1,
    responses: 1,
    response: 1,
  }
  await fails(run(attention), 'RangeError', /"shapes\[0\]\.kvHeads"/)
  await fails(run({ op: 'peak' }, { samples: 0 }), 'RangeError', /"options\.samples"/)
})

test.run()
