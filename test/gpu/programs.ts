/** Programs that the GPU tests run: found, started, ended when their time is over. */
import { spawn, spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { repositoryRoot } from '../support/shared.js'

export interface Finished {
  status: number | null
  output: string
  /** The time was over. */
  late: boolean
}

export function finish(
  command: string,
  args: readonly string[],
  seconds: number,
  env: NodeJS.ProcessEnv = {},
): Promise<Finished> {
  return new Promise((resolve) => {
    const child = spawn(command, args, {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, ...env },
    })
    let output = ''
    let late = false
    const take = (text: Buffer) => {
      output += text
    }
    child.stdout.on('data', take)
    child.stderr.on('data', take)
    const timer = setTimeout(() => {
      late = true
      child.kill('SIGKILL')
    }, seconds * 1000)
    child.on('error', (error) => {
      output += error.message
    })
    child.on('close', (status) => {
      clearTimeout(timer)
      resolve({ status, output, late })
    })
  })
}

/** IMPLEX_PARITY where that is set, else the CMake build's, built where it is not there. */
export function parityProgram(): { path: string } | { absent: string } {
  const path = process.env.IMPLEX_PARITY ?? join(repositoryRoot, 'build-native', 'implex_parity')
  if (existsSync(path)) return { path }
  if (process.env.IMPLEX_PARITY) return { absent: `there is no ${path}` }
  if (spawnSync('cmake', ['--version']).status !== 0) return { absent: `there is no ${path}, and no cmake to build it` }
  const build = spawnSync(process.execPath, [join(repositoryRoot, 'scripts', 'build-native.mjs'), 'tests'], {
    encoding: 'utf8',
  })
  return build.status === 0 ? { path } : { absent: `${build.stdout}${build.stderr}`.trim() }
}
