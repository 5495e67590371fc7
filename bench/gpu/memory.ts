/**
 * Memory of the device that the head's forward pass takes beyond its operands: the peak of a process that does nothing else, less that of
 * one with a tiny head, less the operands. The GPU must be otherwise idle. `node dist/bench/gpu/memory.js DEVICE N V D` is that process.
 */
import { spawn } from 'node:child_process'
import { setTimeout } from 'node:timers/promises'
import { usedMiB } from '../suites/gpu.js'
import type { BenchCase } from '../suites/result.js'
import type { DeviceName } from '../../lib/native/device.js'
import { benchmark } from '../../lib/native/kernels.js'

const SECONDS = 4

interface Shape {
  rows: number
  vocabulary: number
  depth: number
}

async function peakMiB(device: DeviceName, { rows, vocabulary, depth }: Shape): Promise<number | undefined> {
  const before = await usedMiB()
  if (before === undefined) return undefined
  const child = spawn(process.execPath, [import.meta.filename, device, `${rows}`, `${vocabulary}`, `${depth}`], {
    stdio: 'inherit',
  })
  const ended = new Promise<number | null>((resolve) => child.on('close', resolve))
  let status: number | null | undefined
  void ended.then((code) => {
    status = code
  })
  let peak = 0
  while (status === undefined) {
    peak = Math.max(peak, (await usedMiB()) ?? 0)
    await setTimeout(50)
  }
  if (status !== 0) throw new Error(`the process for a head of ${rows}x${vocabulary}x${depth} ended with ${status}`)
  return peak - before
}

/** Empty if the GPU does not report its memory. */
export async function memoryCases(device: DeviceName, shape: Shape): Promise<BenchCase[]> {
  const least = await peakMiB(device, { rows: 8, vocabulary: 1024, depth: 64 })
  const most = least === undefined ? undefined : await peakMiB(device, shape)
  if (least === undefined || most === undefined) return []
  const { rows, vocabulary, depth } = shape
  const operands = 2 * (rows + vocabulary) * depth
  const extraBytes = Math.max(0, (most - least) * 2 ** 20 - operands)
  const name = `logprob ${rows}x${vocabulary}x${depth} extra memory`
  return [{ name, samples: [SECONDS], work: { bytes: operands }, values: { extraBytes } }]
}

if (process.argv[1] !== undefined && import.meta.filename === process.argv[1]) {
  const [device, rows, columns, depth] = process.argv.slice(2) as [DeviceName, string, string, string]
  await benchmark(
    { op: 'linear_logprob', rows: Number(rows), columns: Number(columns), depth: Number(depth) },
    { device, dtype: 'bf16', samples: 1, warmupSeconds: SECONDS, sampleSeconds: 0.02, seed: 1 },
  )
}
