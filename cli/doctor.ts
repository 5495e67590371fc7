/**
 * `implex doctor`: shows what was found on the machine, what is missing and why, and what to do about it.
 */
import { execFile } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { freemem, totalmem } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Command } from 'commander'
import type { CudaReport, EngineReport } from './doctor-probe.js'
import { EXIT } from './exit.js'
import { VERSION } from './version.js'

const PROBE_MS = 60_000
const TOOL_MS = 10_000

export interface DoctorReport {
  version: string
  node: string
  platform: string
  engine: EngineReport
  memory: { total: number; free: number }
  cuda: CudaReport & { driver: string | null; gpus: string[]; nvcc: string | null }
  advice: string[]
}

export function addDoctor(program: Command, finish: (status: number) => void): void {
  program
    .command('doctor')
    .description('Show what this machine and this build can do, and what is missing.')
    .option('--json', 'print JSON, for a bug report or a program', false)
    .helpOption('-h, --help', 'print this help')
    .action(async ({ json }: { json: boolean }) => {
      const report = await examine()
      process.stdout.write(json ? `${JSON.stringify(report, null, 2)}\n` : describe(report))
      finish(report.engine.info === undefined ? EXIT.failed : EXIT.done)
    })
}

async function examine(): Promise<DoctorReport> {
  const [engine, cuda, driver, gpus, nvcc] = await Promise.all([
    probe<EngineReport>('engine', (error) => ({ attempts: [], error })),
    probe<CudaReport>('cuda', (reason) => ({ module: process.env.IMPLEX_CUDA ?? 'implex_cuda.so', ok: false, reason })),
    findDriver(),
    findGpus(),
    findNvcc(),
  ])
  const found = {
    version: VERSION,
    node: process.versions.node,
    platform: `${process.platform} ${process.arch}`,
    engine,
    memory: { total: Math.min(process.constrainedMemory() || totalmem(), totalmem()), free: freemem() },
    cuda: { ...cuda, driver, gpus, nvcc },
  }
  return { ...found, advice: advise(found) }
}

/** Runs the probe as a child process. If it ends without a report, `failed` makes one from the reason. */
async function probe<T>(what: 'engine' | 'cuda', failed: (reason: string) => T): Promise<T> {
  const script = fileURLToPath(new URL('./doctor-probe.js', import.meta.url))
  const { stdout, problem } = await run(process.execPath, [script, what], PROBE_MS)
  try {
    return JSON.parse(stdout.trim().split('\n').at(-1) ?? '') as T
  } catch {
    return failed(`loading it in a separate process failed: ${problem ?? 'it printed nothing'}`)
  }
}

interface RunResult {
  stdout: string
  /** Why the command failed; absent if it succeeded. */
  problem?: string
}

function run(command: string, args: string[], timeout: number): Promise<RunResult> {
  return new Promise((resolve) => {
    execFile(command, args, { timeout, maxBuffer: 1 << 20 }, (error, stdout, stderr) => {
      if (error === null) return resolve({ stdout })
      const lastWords = stderr.trim().split('\n').at(-1) ?? ''
      const how = error.killed
        ? `no answer within ${timeout / 1000} s`
        : error.signal
          ? `ended by ${error.signal}`
          : `exit status ${error.code ?? 'unknown'}`
      resolve({ stdout, problem: lastWords === '' ? how : `${how}: ${lastWords}` })
    })
  })
}

async function findDriver(): Promise<string | null> {
  const text = await readFile('/proc/driver/nvidia/version', 'utf8').catch(() => '')
  return /Module(?: for \w+)?\s+([\d.]+)/.exec(text)?.[1] ?? null
}

async function findGpus(): Promise<string[]> {
  const query = ['--query-gpu=name,memory.total,compute_cap,driver_version', '--format=csv,noheader']
  const { stdout, problem } = await run('nvidia-smi', query, TOOL_MS)
  return problem === undefined ? stdout.split('\n').filter((line) => line.trim() !== '') : []
}

async function findNvcc(): Promise<string | null> {
  const { CUDA_HOME, CUDA_PATH } = process.env
  const folders = [CUDA_HOME, CUDA_PATH, '/usr/local/cuda'].filter((folder) => folder !== undefined)
  for (const command of ['nvcc', ...folders.map((folder) => join(folder, 'bin', 'nvcc'))]) {
    const { stdout, problem } = await run(command, ['--version'], TOOL_MS)
    const release = /release ([\d.]+)/.exec(stdout)?.[1]
    if (problem === undefined && release !== undefined) return `${release} (${command})`
  }
  return null
}

function advise({ engine, cuda }: Omit<DoctorReport, 'advice'>): string[] {
  const advice: string[] = []
  if (engine.info === undefined) {
    advice.push(
      'The engine cannot be used, so implex cannot run models. See the reasons above, and build the engine again with `npm run build:native`.',
    )
  }
  const hasGpu = cuda.gpus.length > 0 || cuda.driver !== null
  if (!cuda.ok && hasGpu) {
    advice.push(
      'This machine has an NVIDIA GPU or driver, but implex cannot use it (see the reason above). Scoring runs on the CPU; --device cuda fails.',
    )
  }
  if (!cuda.ok && !hasGpu)
    advice.push('No NVIDIA GPU or driver was found, so scoring runs on the CPU. You do not need to do anything.')
  if (cuda.ok && cuda.verified === false) {
    advice.push(
      'The CUDA device has not been verified on hardware yet. --device auto does not use it; --device cuda does. Compare its results with those of --device cpu.',
    )
  }
  if (engine.problem !== undefined) advice.push(`No model can be opened: ${engine.problem}.`)
  if (engine.info?.cpu.kernels === 'baseline' && engine.info.cpu.available.length <= 1) {
    advice.push('This processor runs only the baseline kernels. Scoring works, but slowly.')
  }
  return advice
}

function describe({ version, node, platform, engine, memory, cuda, advice }: DoctorReport): string {
  const { info } = engine
  const lines: [string, string][] = [
    ['implex', `${version}, Node.js ${node} on ${platform}`],
    [
      'engine',
      info === undefined ? 'not usable' : `${engine.path} (${info.builder}, ${info.compiler}, Node-API ${info.napi})`,
    ],
  ]
  if (info === undefined) lines.push(['', engine.error ?? 'the reason is unknown'])
  else {
    const others = info.cpu.available.filter((name) => name !== info.cpu.kernels)
    lines.push(
      ['processor', info.cpu.name],
      ['kernels', `${info.cpu.kernels}${others.length > 0 ? ` (also available: ${others.join(', ')})` : ''}`],
      ['threads', `${info.threads} (IMPLEX_THREADS sets it)`],
    )
  }
  lines.push(
    ['memory', `${gibibytes(memory.total)}, ${gibibytes(memory.free)} free`],
    [
      'CUDA',
      cuda.ok ? `usable: ${cuda.description ?? cuda.module}` : `not usable: ${cuda.reason ?? 'the reason is unknown'}`,
    ],
    ['GPUs', cuda.gpus.length > 0 ? cuda.gpus.join('; ') : 'none found (nvidia-smi)'],
    ['driver', cuda.driver ?? 'none found'],
    ['nvcc', cuda.nvcc ?? 'none found'],
  )
  const table = lines.map(([name, text]) => `${name.padEnd(11)}${text.replaceAll('\n', `\n${' '.repeat(11)}`)}`)
  return `${[...table, ...(advice.length > 0 ? ['', ...advice] : [])].join('\n')}\n`
}

function gibibytes(bytes: number): string {
  return `${(bytes / 2 ** 30).toFixed(1)} GiB`
}
