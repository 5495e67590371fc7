/**
 * Measures the errors against the golden checkpoints, of rewards and of the first gradients, and prints them as a table in Markdown.
 *   node dist/test/golden-table.js [FILE]      FILE: also written as JSON (bench/results/golden-accuracy.json is one)
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { DType } from '../lib/native/device.js'
import { nativeInfo } from '../lib/native/handles.js'
import { ARCHITECTURES, BOUNDS, errorTable, golden, type Measure, measure } from './support/golden.js'
import { KINDS, measureTraining } from './support/golden-train.js'
import { repositoryRoot } from './support/shared.js'

const errors: Record<string, Record<string, Record<Measure, number>>> = {}
for (const dtype of ['f32', 'bf16'] as DType[]) {
  errors[dtype] = {}
  for (const architecture of ARCHITECTURES) {
    const files = golden(architecture)
    if (files === undefined) throw new Error('../shared/golden is absent')
    errors[dtype][architecture] = (await measure(files, dtype)).errors
  }
  console.log(`\n${dtype}\n\n${errorTable([...Object.entries(errors[dtype]), ['bound', BOUNDS[dtype]]])}`)
}
/** The largest error in the norm of a parameter's gradient, over all objectives. */
const gradients: Record<string, number> = {}
for (const architecture of ARCHITECTURES) {
  const worst = []
  for (const kind of KINDS) worst.push((await measureTraining(architecture, kind)).norm)
  gradients[architecture] = Math.max(...worst)
}
console.log(gradients)
const [file] = process.argv.slice(2)
if (file !== undefined) {
  const { builder, compiler, cpu, threads } = nativeInfo()
  const { version } = JSON.parse(readFileSync(join(repositoryRoot, 'package.json'), 'utf8')) as { version: string }
  const report = {
    what: 'Largest errors against float64 PyTorch over the eight pairs of each golden checkpoint; measures and bounds: docs/numerics.md',
    command: `node dist/test/golden-table.js ${file}`,
    date: new Date().toISOString().slice(0, 10),
    implex: version,
    node: process.versions.node,
    machine: { cpu: cpu.name, kernels: cpu.kernels, threads, platform: `${process.platform} ${process.arch}` },
    build: { builder, compiler },
    bounds: BOUNDS,
    errors,
    gradients,
  }
  writeFileSync(file, `${JSON.stringify(report, null, 2)}\n`)
}
