/**
 * The part of `implex doctor` that loads native code. It runs in a separate process, so that a crash becomes part of the report.
 * Argument: `engine` or `cuda`. Prints one line of JSON.
 */
import { existsSync } from 'node:fs'
import { CUDA_VERIFIED, cudaModulePath } from '../lib/native/device.js'
import { kernels } from '../lib/native/kernels.js'
import { nativeInfo, probeDevice } from '../lib/native/handles.js'
import { type NativeAttempt, nativeLocation } from '../lib/native/load.js'
import type { DeviceProbe, NativeInfo } from '../lib/native/types.js'

export interface EngineReport {
  path?: string
  attempts: NativeAttempt[]
  info?: NativeInfo
  error?: string
  /** Why no model can be opened on the CPU although the engine was loaded. */
  problem?: string
}

export interface CudaReport extends DeviceProbe {
  module: string
  /** Whether `--device auto` uses the module; absent without a module. */
  verified?: boolean
}

async function engine(): Promise<EngineReport> {
  const { path, attempts, error } = nativeLocation()
  if (path === undefined) return { attempts, error: error?.message ?? 'the engine was not found' }
  const report: EngineReport = { path, attempts, info: nativeInfo() }
  const one = Float32Array.of(1)
  return kernels.gemm({ a: one, b: one, k: 1 }).then(
    () => report,
    (error: Error) => ({ ...report, problem: error.message }),
  )
}

function cuda(): CudaReport {
  const module = cudaModulePath()
  if (!existsSync(module)) return { module, ok: false, reason: `there is no CUDA module at ${module}` }
  return { module, verified: CUDA_VERIFIED, ...probeDevice(module) }
}

process.stdout.write(`${JSON.stringify(process.argv[2] === 'cuda' ? cuda() : await engine())}\n`)
