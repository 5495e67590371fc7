/** The operations' comparison again under compute-sanitizer's tools, which see what no result shows. */
import { spawnSync } from 'node:child_process'
import { failed, type GpuCase, passed, skipped } from './cases.js'
import { finish, parityProgram } from './programs.js'

const TOOLS = ['memcheck', 'racecheck', 'synccheck', 'initcheck'] as const

/** A tool's verdict from what it printed. */
export function verdict(tool: string, output: string, status: number | null, late: boolean): GpuCase {
  const name = 'all operations'
  // racecheck says "RACECHECK SUMMARY: 0 hazards displayed", the others "ERROR SUMMARY: 0 errors".
  const found = /(?:ERROR|RACECHECK) SUMMARY: (\d+) (?:errors?|hazards?)/.exec(output)?.[1]
  // Neither good nor bad: what was reached is known, the rest is not.
  if (late) return skipped(tool, name, `the time was over after ${output.split('\nok ').length - 1} comparisons`)
  if (found === undefined) return failed(tool, name, `no verdict (status ${status}): ${output.trim().slice(-300)}`)
  if (found !== '0') {
    const lines = output
      .split('\n')
      .filter((line) => line.startsWith('=========') && /Invalid|hazard|Uninit|Barrier/.test(line))
    return failed(tool, name, `${found} found: ${lines.slice(0, 3).join(' | ')}`)
  }
  const comparisons = /^(\d+) passed, (\d+) failed$/m.exec(output)
  if (comparisons === null) return failed(tool, name, 'the comparison did not end')
  return comparisons[2] === '0'
    ? passed(tool, name)
    : failed(tool, name, `${comparisons[2]} comparisons failed under it`)
}

/** @param seconds for each tool */
export async function sanitize(module: string, seconds: number, part = ''): Promise<GpuCase[]> {
  if (spawnSync('compute-sanitizer', ['--version']).status !== 0) {
    return TOOLS.map((tool) => skipped(tool, 'all operations', 'compute-sanitizer was not found'))
  }
  const program = parityProgram()
  if ('absent' in program) return [failed('memcheck', 'all operations', program.absent)]
  const cases: GpuCase[] = []
  for (const tool of TOOLS) {
    const args = ['--tool', tool, '--error-exitcode', '9', program.path, module, ...(part === '' ? [] : [part])]
    const { output, status, late } = await finish('compute-sanitizer', args, seconds)
    cases.push(verdict(tool, output, status, late))
  }
  return cases
}
