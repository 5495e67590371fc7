/** One test program run as a child process: hard timeout, all its output, and its counts. */
import { spawn } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

export interface Program {
  name: string
  command: string
  args: string[]
  env?: NodeJS.ProcessEnv
  /** Reads the program's counts out of what it printed. */
  parse(output: string): Counts
}

export interface Counts {
  passed: number
  failed: number
  /** One entry per skipped test: where and why. */
  skips: string[]
}

export interface Outcome extends Counts {
  output: string
  seconds: number
  /** Processor time of the program and of all that it started and waited for, where the system tells. */
  cpuSeconds?: number
  /** What went wrong with the program as a whole, if anything did. Counted in `failed`. */
  problem?: string
}

/** Runs a program to its end, or kills it and everything it started after `timeout` seconds. Echoes its output when `verbose`. */
export async function runProgram(program: Program, timeout: number, verbose: boolean): Promise<Outcome> {
  const start = performance.now()
  const { output, problem, cpuSeconds } = await collect(program, timeout, verbose)
  const counts = program.parse(output)
  const outcome: Outcome = { ...counts, output, seconds: (performance.now() - start) / 1000, cpuSeconds }
  if (problem !== undefined && !(problem.expected && counts.failed > 0)) {
    outcome.problem = problem.text
    outcome.failed += 1
  } else if (counts.passed + counts.failed + counts.skips.length === 0) {
    outcome.problem = 'reported no tests (is .run() missing?)'
    outcome.failed += 1
  }
  return outcome
}

/** `expected`: an exit status that failing tests explain. */
type Problem = { text: string; expected: boolean }

interface Collected {
  output: string
  problem?: Problem
  cpuSeconds?: number
}

function collect(program: Program, timeout: number, verbose: boolean): Promise<Collected> {
  return new Promise((resolve) => {
    // Its own place for temporary files, which goes away also when the program is killed.
    const scratch = mkdtempSync(join(tmpdir(), 'implex-test-'))
    const usage = join(scratch, 'usage')
    const clean = () => {
      try {
        rmSync(scratch, { recursive: true, force: true, maxRetries: 5 })
      } catch {
        // A file system that a killed test had mounted there.
      }
    }
    // A process group of its own, so that a timeout also ends what the test started.
    const child = spawn(program.command, program.args, {
      detached: true,
      stdio: ['ignore', 'pipe', 'pipe'],
      env: {
        ...process.env,
        NO_COLOR: '1',
        FORCE_COLOR: '0',
        TMPDIR: scratch,
        IMPLEX_TEST_USAGE: usage,
        ...program.env,
      },
    })
    const chunks: Buffer[] = []
    const take = (chunk: Buffer) => {
      chunks.push(chunk)
      if (verbose) process.stdout.write(chunk)
    }
    child.stdout.on('data', take)
    child.stderr.on('data', take)

    const kill = () => {
      try {
        if (child.pid !== undefined) process.kill(-child.pid, 'SIGKILL')
      } catch {
        // Already gone.
      }
    }
    let timedOut = false
    const timer = setTimeout(() => {
      timedOut = true
      kill()
    }, timeout * 1000)
    const interrupted = () => {
      kill()
      clean()
      process.exit(130)
    }
    process.once('SIGINT', interrupted)
    process.once('SIGTERM', interrupted)

    const finish = (problem?: Problem) => {
      clearTimeout(timer)
      process.off('SIGINT', interrupted)
      process.off('SIGTERM', interrupted)
      const cpuSeconds = existsSync(usage) ? Number(readFileSync(usage, 'utf8')) : undefined
      clean()
      resolve({ output: Buffer.concat(chunks).toString(), problem, cpuSeconds })
    }
    child.on('error', (error) => finish({ text: `could not start: ${error.message}`, expected: false }))
    child.on('close', (status, signal) => {
      if (timedOut) finish({ text: `ran past ${timeout} s and was killed`, expected: false })
      else if (signal !== null) finish({ text: `was ended by ${signal}`, expected: false })
      else if (status !== 0) finish({ text: `exited with status ${status}`, expected: status === 1 })
      else finish()
    })
  })
}
