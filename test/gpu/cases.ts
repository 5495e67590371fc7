/** What the GPU test programs report: one line of JSON a case, a table and a file of them. */
import { writeFileSync } from 'node:fs'
import { commitOf } from '../../bench/suites/commit.js'
import { gpus } from '../../bench/suites/gpu.js'
import { table } from '../../bench/suites/table.js'
import type { DeviceName } from '../../lib/native/device.js'
import { nativeInfo } from '../../lib/native/handles.js'
import { repositoryRoot } from '../support/shared.js'

export interface GpuCase {
  /** 'parity', 'models', 'memcheck', ... */
  suite: string
  name: string
  outcome: 'passed' | 'failed' | 'skipped'
  /** What failed, or why it was skipped. */
  detail?: string
  /** The largest error, as a share of what is allowed. */
  worst?: number
}

export const FORMAT = 'implex-gpu-test-1'

export const passed = (suite: string, name: string, worst?: number): GpuCase => ({
  suite,
  name,
  outcome: 'passed',
  worst,
})
export const failed = (suite: string, name: string, detail: string): GpuCase => ({
  suite,
  name,
  outcome: 'failed',
  detail,
})
export const skipped = (suite: string, name: string, detail: string): GpuCase => ({
  suite,
  name,
  outcome: 'skipped',
  detail,
})

/** Lines that are cases; others are what a program says besides. */
export function readCases(output: string): GpuCase[] {
  return output
    .split('\n')
    .filter((line) => line.startsWith('{"suite"'))
    .map((line) => JSON.parse(line) as GpuCase)
}

export async function writeReport(file: string, device: DeviceName, cases: readonly GpuCase[]): Promise<void> {
  const { version, compiler, cpu } = nativeInfo()
  const report = {
    format: FORMAT,
    date: new Date().toISOString(),
    command: process.argv.slice(2),
    ...(await commitOf(repositoryRoot)),
    device,
    gpus: await gpus(),
    machine: { cpu: cpu.name, kernels: cpu.kernels, platform: `${process.platform} ${process.arch}` },
    versions: { implex: version, node: process.versions.node, compiler },
    cases,
  }
  writeFileSync(file, `${JSON.stringify(report, null, 1)}\n`)
}

/** A row for each suite, then what failed and what was skipped. */
export function summary(cases: readonly GpuCase[]): string {
  const suites = [...new Set(cases.map(({ suite }) => suite))]
  const rows = suites.map((suite) => {
    const own = cases.filter((item) => item.suite === suite)
    const count = (outcome: GpuCase['outcome']) => String(own.filter((item) => item.outcome === outcome).length)
    const worst = Math.max(...own.map((item) => item.worst ?? 0))
    return [suite, count('passed'), count('failed'), count('skipped'), worst === 0 ? '-' : worst.toPrecision(2)]
  })
  const told = cases
    .filter(({ outcome }) => outcome !== 'passed')
    .map(({ outcome, suite, name, detail }) => `${outcome}: ${suite} ${name}: ${detail}`)
  return [...told, table(['suite', 'passed', 'failed', 'skipped', 'error/allowed'], rows)].join('\n')
}
