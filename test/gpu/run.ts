/**
 * `npm run test:gpu`: the CUDA device against the CPU and float64, operation by operation and whole models, and under compute-sanitizer.
 *
 *   node dist/test/gpu/run.js [--device cuda] [--only parity,models,graphs,sanitize] [--seconds 900] [--sanitize-part TEXT] [--out FILE]
 *
 * --seconds: for everything; a suite without time left is skipped and says so. --device cpu compares the CPU with itself, to try the tests.
 * Exit status: 0, 1 where something failed, 2 where the device cannot be used.
 */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { cudaModulePath, type DeviceName } from '../../lib/native/device.js'
import { probeDevice } from '../../lib/native/handles.js'
import { failed, type GpuCase, readCases, skipped, summary, writeReport } from './cases.js'
import { parity } from './parity.js'
import { finish } from './programs.js'
import { sanitize } from './sanitize.js'

/** Why the CUDA device cannot be used here; undefined where it can. */
export function cudaAbsent(): string | undefined {
  const path = cudaModulePath()
  if (!existsSync(path)) return `there is no CUDA module at ${path}`
  const { ok, reason } = probeDevice(path)
  return ok ? undefined : reason
}

export interface GpuTestOptions {
  device: DeviceName
  only: readonly string[]
  seconds: number
  sanitizePart: string
}

/** Suite `graphs`: the same models with IMPLEX_CUDA_GRAPHS. */
async function models(device: DeviceName, seconds: number, suite: 'models' | 'graphs' = 'models'): Promise<GpuCase[]> {
  const program = join(import.meta.dirname, 'models.js')
  const { output, status, late } = await finish(process.execPath, [program, device], seconds, {
    IMPLEX_CUDA_GRAPHS: suite === 'graphs' ? '1' : '0',
  })
  const cases = readCases(output).map((item) => ({ ...item, suite }))
  if (status === 0) return cases
  const why = late ? 'the time was over' : `ended with status ${status}: ${output.trim().slice(-300)}`
  return [...cases, failed(suite, 'the whole program', why)]
}

export async function gpuTests({ device, only, seconds, sanitizePart }: GpuTestOptions): Promise<GpuCase[]> {
  const end = performance.now() + seconds * 1000
  const module = device === 'cpu' ? 'cpu' : cudaModulePath()
  const suites: Record<string, (left: number) => Promise<GpuCase[]>> = {
    parity: (left) => parity(module, left),
    models: (left) => models(device, left),
    graphs: async (left) => (device === 'cpu' ? [] : models(device, left, 'graphs')),
    sanitize: async (left) => (device === 'cpu' ? [] : sanitize(module, left / 4, sanitizePart)),
  }
  const cases: GpuCase[] = []
  for (const [name, run] of Object.entries(suites)) {
    if (only.length > 0 && !only.includes(name)) continue
    const left = (end - performance.now()) / 1000
    const found = left < 5 ? [skipped(name, 'everything', 'no time was left')] : await run(left)
    cases.push(...found)
  }
  return cases
}

if (process.argv[1] !== undefined && import.meta.filename === process.argv[1]) {
  const { values: flags } = parseArgs({
    options: {
      device: { type: 'string', default: 'cuda' },
      only: { type: 'string', default: '' },
      seconds: { type: 'string', default: '900' },
      'sanitize-part': { type: 'string', default: '' },
      out: { type: 'string' },
    },
  })
  const device = flags.device as DeviceName
  const absent = device === 'cpu' ? undefined : cudaAbsent()
  if (absent !== undefined) {
    console.log(`the CUDA device cannot be used: ${absent}`)
    process.exitCode = 2
  } else {
    const only = flags.only.split(',').filter((name) => name !== '')
    const cases = await gpuTests({ device, only, seconds: Number(flags.seconds), sanitizePart: flags['sanitize-part'] })
    if (flags.out !== undefined) await writeReport(flags.out, device, cases)
    console.log(summary(cases))
    const count = (outcome: GpuCase['outcome']) => cases.filter((item) => item.outcome === outcome).length
    console.log(`${count('passed')} passed, ${count('failed')} failed, ${count('skipped')} skipped`)
    process.exitCode = count('failed') > 0 || count('passed') === 0 ? 1 : 0
  }
}
