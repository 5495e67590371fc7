/** Every operation of the device against the CPU's, by native/test/parity. */
import { failed, type GpuCase, passed, skipped } from './cases.js'
import { finish, parityProgram } from './programs.js'

const SUITE = 'parity'

/** Cases of the program's output; a run that ended early is a failure of its own. */
export function parityCases(output: string, status: number | null, late: boolean, operation = 'everything'): GpuCase[] {
  const cases = output.split('\n').flatMap((line): GpuCase[] => {
    const ok = /^ok (\S+) \d+ (\S+)$/.exec(line)
    if (ok !== null) return [passed(SUITE, ok[1]!, Number(ok[2]))]
    const fail = /^FAIL (\S+): (.*)$/.exec(line)
    return fail === null ? [] : [failed(SUITE, fail[1]!, fail[2]!)]
  })
  const complete = /^\d+ passed, \d+ failed$/m.test(output)
  if (!complete || (status !== 0 && status !== 1)) {
    const why = late ? 'the time was over' : output.trim().split('\n').slice(-3).join(' | ')
    cases.push(failed(SUITE, operation, `ended early (status ${status}): ${why}`))
  }
  return cases
}

/** Operations that have cases. */
async function operations(program: string): Promise<string[]> {
  const { output } = await finish(program, ['--list'], 60)
  const names = output.split('\n').flatMap((line) => /^(\w+)\.\w+$/.exec(line)?.[1] ?? [])
  return [...new Set(names)]
}

/**
 * A process for each operation: after a fault such as an access outside of memory a GPU serves that process no more.
 * @param module a device module, or `cpu`
 */
export async function parity(module: string, seconds: number): Promise<GpuCase[]> {
  const program = parityProgram()
  if ('absent' in program) return [failed(SUITE, 'the whole program', program.absent)]
  const end = performance.now() + seconds * 1000
  const cases: GpuCase[] = []
  for (const operation of await operations(program.path)) {
    const left = (end - performance.now()) / 1000
    if (left < 1) {
      cases.push(skipped(SUITE, operation, 'no time was left'))
      continue
    }
    const { output, status, late } = await finish(program.path, [module, `${operation}.`], left)
    cases.push(...parityCases(output, status, late, operation))
  }
  return cases.length > 0 ? cases : [failed(SUITE, 'the whole program', 'it lists no cases')]
}
