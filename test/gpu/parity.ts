/** Every operation of the device against the CPU's, by native/test/parity. */
import { failed, type GpuCase, passed } from './cases.js'
import { finish, parityProgram } from './programs.js'

const SUITE = 'parity'

/** Cases of the program's output; a run that ended early is a failure of its own. */
export function parityCases(output: string, status: number | null, late: boolean, suite = SUITE): GpuCase[] {
  const cases = output.split('\n').flatMap((line): GpuCase[] => {
    const ok = /^ok (\S+) \d+ (\S+)$/.exec(line)
    if (ok !== null) return [passed(suite, ok[1]!, Number(ok[2]))]
    const fail = /^FAIL (\S+): (.*)$/.exec(line)
    return fail === null ? [] : [failed(suite, fail[1]!, fail[2]!)]
  })
  const complete = /^\d+ passed, \d+ failed$/m.test(output)
  if (!complete || (status !== 0 && status !== 1)) {
    const why = late ? 'the time was over' : output.trim().split('\n').slice(-3).join(' | ')
    cases.push(failed(suite, 'the whole program', `ended early (status ${status}): ${why}`))
  }
  return cases
}

/** @param module a device module, or `cpu` */
export async function parity(module: string, seconds: number): Promise<GpuCase[]> {
  const program = parityProgram()
  if ('absent' in program) return [failed(SUITE, 'the whole program', program.absent)]
  const { output, status, late } = await finish(program.path, [module], seconds)
  return parityCases(output, status, late)
}
